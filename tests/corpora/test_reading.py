"""Every kind of corpus gives its documents in order, again and again, or says what is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

import interp
from interp.corpora import Corpus, read
from interp.corpora.corpus import chain, weight
from interp.errors import CorpusError
from interp.token_batch import TokenBatch

TEXTS = ["The capital of France is Paris.", "", "Ein Satz — mit Umlauten: äöü.", "drei"]
ROWS = np.array([[5, 6, 7], [8, 9, 10]], dtype=np.uint16)


def listed(corpus: Corpus) -> list:
    return [d if isinstance(d, str) else d.tolist() for d in corpus.documents()]


def again(corpus: Corpus) -> list:
    """The documents, which are the same on a second reading, and JSON for an identity."""
    first = listed(corpus)
    assert listed(corpus) == first
    assert corpus.n_documents in (None, len(first))
    assert json.loads(json.dumps(corpus.identity)) == corpus.identity
    return first


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


# --- in memory


def test_lists_of_texts_records_and_ids():
    assert again(read(TEXTS)) == TEXTS
    assert again(read(tuple(TEXTS))) == TEXTS
    assert again(read(np.array(TEXTS))) == TEXTS
    assert again(read([{"text": t, "n": 1} for t in TEXTS])) == TEXTS
    assert again(read([{"body": t} for t in TEXTS], field="body")) == TEXTS
    assert again(read([{"input_ids": [1, 2]}, {"tokens": torch.tensor([3])}])) == [[1, 2], [3]]
    assert again(read([[1, 2], [3], []])) == [[1, 2], [3], []]
    assert again(read([1, 2, 3])) == [[1, 2, 3]]
    assert again(read(["text", [1, 2]])) == ["text", [1, 2]]
    assert repr(read(["one"])) == "Corpus('1 document', 1 documents)"
    assert read(TEXTS).estimate() == sum(len(t.encode()) for t in TEXTS)
    corpus = read(TEXTS)
    assert read(corpus) is corpus


def test_arrays_tensors_batches_and_prompts():
    for rows in (ROWS, torch.from_numpy(ROWS.astype(np.int64)), ROWS.tolist()):
        assert again(read(rows)) == ROWS.tolist()
    assert again(read(ROWS[0])) == [[5, 6, 7]]
    batch = TokenBatch.stack([[5, 6], [7]], pad="left")
    assert again(read(batch)) == [[5, 6], [7]]
    model = interp.load("demo")
    pairs = interp.prompts.capitals(model, n=3, seed=0)
    texts = [model.to_string(ids.tolist()) for ids in read(pairs).documents()]
    assert texts == [model.to_string(pairs.clean.ids[i][pairs.clean.mask[i]]) for i in range(3)]
    assert read(pairs).name == pairs.name


def test_streams():
    assert again(read(dict.fromkeys(TEXTS).keys())) == TEXTS
    assert again(read(lambda: iter(TEXTS))) == TEXTS
    assert again(read(lambda: ({"text": t} for t in TEXTS))) == TEXTS
    assert again(read(pd.Series(TEXTS))) == TEXTS
    once = read(t for t in TEXTS)
    assert listed(once) == TEXTS
    with pytest.raises(CorpusError, match="can be read once, and has been. Pass a list, or a fun"):
        once.documents()
    assert once.estimate() is None
    endless = read(lambda: iter(lambda: "again", None))
    assert next(endless.documents()) == "again"


# --- files


def test_text_files(tmp_path):
    text = "\ufeffone line\r\n\r\n\ntwo\nthree\n"
    for name in ("a.txt", "a.txt.gz"):
        path = write(tmp_path / name, text)
        assert again(read(path)) == ["one line\n\n\ntwo\nthree"]
        assert again(read(str(path), split="line")) == ["one line", "", "", "two", "three"]
        assert again(read(path, split="paragraph")) == ["one line", "two\nthree"]
    assert read(tmp_path / "a.txt").n_documents == 1
    assert read(tmp_path / "a.txt").estimate() == len(text.encode())


def test_json_lines(tmp_path):
    lines = "\n".join(
        [json.dumps({"text": t, "n": 1}, ensure_ascii=False) for t in TEXTS] + ["", ""]
    )
    for name in ("a.jsonl", "a.json", "a.jsonl.gz", "A.JSONL.GZ"):
        assert again(read(write(tmp_path / name, lines))) == TEXTS
    mixed = write(tmp_path / "b.jsonl", '"bare"\n[1, 2]\n{"tokens": [3]}\n')
    assert again(read(mixed)) == ["bare", [1, 2], [3]]
    body = write(tmp_path / "c.jsonl", '{"body": "x"}')
    assert again(read(body, field="body")) == ["x"]


def test_sizes_of_json_lines_are_told_from_their_beginning(tmp_path):
    texts = [f"text number {i} " * (i % 7) for i in range(2000)]
    lines = "\n".join(json.dumps({"text": t, "id": i}) for i, t in enumerate(texts))
    whole = sum(map(weight, texts))
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert read(write(tmp_path / name, lines)).estimate() == pytest.approx(whole, rel=0.01)


def test_arrays_and_tables(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    np.save(tmp_path / "rows.npy", ROWS)
    np.save(tmp_path / "row.npy", ROWS[0])
    save_file({"tokens": ROWS, "scores": np.zeros(2, np.float32)}, tmp_path / "s.safetensors")
    assert again(read(tmp_path / "rows.npy")) == ROWS.tolist()
    assert again(read(tmp_path / "row.npy")) == [ROWS[0].tolist()]
    assert again(read(tmp_path / "s.safetensors")) == ROWS.tolist()
    table = pa.table({"n": list(range(4)), "text": TEXTS})
    pq.write_table(table, tmp_path / "t.parquet")
    pq.write_table(pa.table({"input_ids": [[1, 2], [3]]}), tmp_path / "i.parquet")
    with pa.OSFile(str(tmp_path / "f.arrow"), "wb") as f, pa.ipc.new_file(f, table.schema) as w:
        w.write_table(table)
    with pa.OSFile(str(tmp_path / "g.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
        w.write_table(table)
    for name in ("t.parquet", "f.arrow", "g.arrow"):
        assert again(read(tmp_path / name)) == TEXTS
        assert read(tmp_path / name).n_documents == 4
    assert again(read(tmp_path / "i.parquet")) == [[1, 2], [3]]
    with pytest.raises(CorpusError, match=r"t.parquet has the fields 'n', 'text', expected 'body'"):
        read(tmp_path / "t.parquet", field="body")


def test_folders_and_lists_of_paths(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    write(folder / "b.txt", "bee")
    write(folder / "a.jsonl", '{"text": "ay"}')
    write(folder / "deep" / "c.txt", "see")
    write(folder / "notes.md", "not read")
    write(folder / ".hidden.txt", "nor this")
    corpus = read(folder)
    assert again(corpus) == ["ay", "bee", "see"]
    assert corpus.identity == {
        "kind": "files", "files": [["a.jsonl", 14], ["b.txt", 3], ["deep/c.txt", 3]],
        "field": "text", "split": "file",
    }  # fmt: skip
    assert corpus.name == "3 files"
    assert again(read([folder / "b.txt", str(folder / "a.jsonl")])) == ["bee", "ay"]
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert read(moved).identity == corpus.identity


# --- data sets


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def test_hugging_face_datasets(datasets):
    data = datasets.Dataset.from_dict({"n": [1, 2, 3, 4], "text": TEXTS})
    corpus = read(data)
    assert again(corpus) == TEXTS
    assert corpus.n_documents == 4
    assert read(data.shuffle(seed=1)).identity != corpus.identity
    assert read(datasets.Dataset.from_dict({"n": [1, 2, 3, 4], "text": TEXTS})).identity == (
        corpus.identity
    )
    streamed = read(data.to_iterable_dataset())
    assert again(streamed) == TEXTS
    assert streamed.n_documents is None
    unknown = datasets.IterableDataset.from_generator(lambda: ({"text": t} for t in TEXTS))
    assert again(read(unknown)) == TEXTS
    ids = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]]})
    assert again(read(ids)) == [[1, 2], [3]]
    for form in ("torch", "numpy", "pandas", "arrow"):
        assert again(read(ids.with_format(form))) == [[1, 2], [3]]
        assert again(read(data.with_format(form))) == TEXTS
        assert again(read(data.to_iterable_dataset().with_format(form))) == TEXTS
    with pytest.raises(
        CorpusError, match="the data set has the fields 'n', 'text', expected 'body'"
    ):
        read(data, field="body")
    with pytest.raises(CorpusError, match="a DatasetDict with 'train' is no corpus"):
        read(datasets.DatasetDict({"train": data}))


# --- identity


def test_identities_tell_corpora_apart_and_chains_read_every_document():
    same = [read(TEXTS), read(list(TEXTS)), read([{"text": t} for t in TEXTS])]
    assert len({json.dumps(c.identity) for c in same}) == 1
    other = [read([*TEXTS, "more"]), read(TEXTS[::-1]), read(ROWS), read(ROWS[:1]),
             read(["1"]), read([[1]]), read(lambda: iter(TEXTS)), read("demo"),
             read("demo", seed=1)]  # fmt: skip
    assert len({json.dumps(c.identity) for c in (*same, *other)}) == 1 + len(other)
    assert chain(chain("", "ab"), "c") != chain(chain("", "a"), "bc")
    assert chain("", np.array([5], np.uint16)) == chain("", np.array([5]))
    long = np.arange(2**20 + 5)
    assert chain("", long) != chain("", long[:-1])


# --- errors


@pytest.mark.bad_input
def test_what_is_no_corpus_is_refused(tmp_path):
    np.save(tmp_path / "floats.npy", np.zeros((2, 3)))
    write(tmp_path / "broken.npy", "not an array")
    save_file({"a": ROWS, "b": ROWS}, tmp_path / "two.safetensors")
    write(tmp_path / "broken.safetensors", "nothing")
    write(tmp_path / "broken.parquet", "nothing")
    write(tmp_path / "notes.md", "text")
    (tmp_path / "empty").mkdir()
    for given, message in (
        ("The capital of France", r"neither 'demo' nor an existing file or folder. To read one text"),
        ("x" * 5000, "To read one text pass"),
        ("missing.txt", "there is no file 'missing.txt'"),
        (["missing.txt"], "there is no file 'missing.txt'"),
        (tmp_path / "notes.md", "is of no kind that is read; expected a name that ends in .txt"),
        (tmp_path / "empty", "holds no file of a kind that is read"),
        ([], "the list is empty"),
        (["a", None], r"document 1 is None \(NoneType\); expected a text, one row of token ids"),
        ([[1.5]], r"document 0 is a list of shape \[1\] and dtype float64"),
        ([[True]], "dtype bool"),
        ([b"text"], "document 0 is a bytes; expected a text"),
        ([bytearray(b"text")], "document 0 is a bytearray; expected a text"),
        ([memoryview(b"text")], "document 0 is a memoryview; expected a text"),
        ([[[1], [2, 3]]], "document 0 is a list; expected"),
        ([{"a": 1, "b": 2}], r"document 0 has the fields 'a', 'b', expected 'text'.*field='a'"),
        (np.zeros((2, 3)), r"the array holds float64 of shape \[2, 3\]; expected token ids"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"int64 of shape \[1, 2, 3\]"),
        ({"train": ["a"]}, "a dict with 'train' is no corpus"),
        ({"a", "b"}, r"a set has no order.*pass sorted\(texts\)"),
        (pd.DataFrame({"text": ["a"]}), r"a data frame .* pass a column, as frame\['text'\]"),
        (7, "a int is no corpus; expected 'demo', a path, texts"),
        (TokenBatch(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2).bool(),
                    torch.tensor([[0, 1]])), "packed already"),
        (tmp_path / "floats.npy", r"floats.npy holds float64 of shape \[2, 3\]; expected token ids"),
        (tmp_path / "broken.npy", "cannot read .*broken.npy"),
        (tmp_path / "two.safetensors", r"holds a \(U16\), b \(U16\); expected one tensor of integers"),
        (tmp_path / "broken.safetensors", "cannot read .*broken.safetensors"),
        (tmp_path / "broken.parquet", "cannot read .*broken.parquet"),
    ):  # fmt: skip
        with pytest.raises(CorpusError, match=message):
            read(given)
    with pytest.raises(CorpusError, match="split='page'; expected 'file', 'line' or 'paragraph'"):
        read(write(tmp_path / "a.txt", "a"), split="page")
    with pytest.raises(CorpusError, match="the function returned a str; expected an iterator"):
        read(lambda: "text").documents()


def test_broken_files_are_named_with_their_line(tmp_path):
    latin = write(tmp_path / "latin.txt", "gut\nschön\n".encode("latin-1"))
    for split in ("file", "line", "paragraph"):
        with pytest.raises(CorpusError, match=r"latin.txt, line 2 is not UTF-8 .*byte 0xf6"):
            listed(read(latin, split=split))
    lines = write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": \n')
    with pytest.raises(CorpusError, match=r"a.jsonl, line 3 is not JSON .*expected one record on"):
        listed(read(lines))
    fields = write(tmp_path / "b.jsonl", '{"text": "a"}\n{"body": "b", "id": 4}\n')
    with pytest.raises(
        CorpusError, match=r"b.jsonl, line 2 has the fields 'body', 'id', expected 't"
    ):
        listed(read(fields))
    numbers = write(tmp_path / "c.jsonl", '{"text": 4}\n')
    with pytest.raises(CorpusError, match="c.jsonl, line 1 is a int; expected a text"):
        listed(read(numbers))
    packed = write(tmp_path / "d.jsonl.gz", "".join(f'{{"text": "{i}"}}\n' for i in range(999)))
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(CorpusError, match="d.jsonl.gz is damaged .*expected a complete gzip file"):
        listed(read(packed))
    gone = read(write(tmp_path / "gone.txt", "a"))
    (tmp_path / "gone.txt").unlink()
    with pytest.raises(CorpusError, match=r"cannot read .*gone.txt: No such file"):
        listed(gone)


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 5000])
def test_json_that_python_gives_up_on_is_named_with_its_line(tmp_path, line):
    path = write(tmp_path / "deep.jsonl", f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(CorpusError, match=r"deep.jsonl, line 2 is not JSON"):
        listed(read(path))


def test_hidden_files_and_folders_are_no_part_of_a_folder(tmp_path):
    for folder in ("texts/.ipynb_checkpoints", "texts/more", "texts/.git/logs"):
        (tmp_path / ".home" / folder).mkdir(parents=True)
        write(tmp_path / ".home" / folder / "a.txt", folder)
    write(tmp_path / ".home/texts/.b.txt", "hidden")
    assert listed(read(tmp_path / ".home/texts")) == ["texts/more"]


def test_a_text_file_too_large_for_one_document_says_how_to_split_it(tmp_path, monkeypatch):
    monkeypatch.setattr("interp.corpora.files.WHOLE", 2**20)
    path = write(tmp_path / "long.txt", "line\n" * 2**18)
    with pytest.raises(
        CorpusError, match=r"more than 1 MiB, .*read\(path, split='line'\) or split="
    ):
        listed(read(path))
    assert len(listed(read(path, split="line"))) == 2**18
