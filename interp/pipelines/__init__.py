"""From a behaviour to its circuit, end to end, with roles assigned by what nodes were seen to do."""
