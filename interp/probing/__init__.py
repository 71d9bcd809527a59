"""Probes and comparisons of representations: what can be read off a site, and is it the model's?

    probe            a linear probe at each site, cross-validated by document         (verb)
    probe_features   the same on arrays of your own                                   (verb)
    ProbeResult      scores, intervals, controls, directions                          (result)
    similarity       a layer × layer map of two models' representations               (similarity)

Underneath: ``features`` runs the model; ``targets`` reads labels and documents and deals the
documents out to folds; ``fit`` fits linear maps; ``crossfit`` predicts each document by a probe
that never saw it; ``controls`` makes labels that should not be readable; ``scoring`` scores.
"""
