"""What storage promises, at gs:// and s3://, against servers that speak their HTTP."""

import itertools
import os
import subprocess
import sys

import object_stores
import pytest

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.storage import appending

ODD = ["a b/ü", "50%41", "run[1]*", "a#b?c", "é/日本"]


def test_what_was_written_is_read_and_listed(store):
    """Under any name that an object may have, to the last byte."""
    folder = storage.as_path(store.folder(), "MODEL_DIR")
    for name in ODD:
        path, content = folder / name / "file.txt", f"{name}\r".encode()
        assert storage.read_if_there(path, "X") is None
        assert not storage.is_file(path, "X")
        storage.write_whole(path, content)
        assert storage.read_bytes(path, "X") == content
        assert storage.size_of(path, "X") == len(content)
        assert storage.is_file(path, "X")
        assert storage.is_folder(folder / name, "X")
        assert storage.names_in(folder / name, "X") == {"file.txt"}
        assert list(storage.list_files(str(path), "X").values()) == [len(content)]
    assert storage.names_in(folder, "X") == {name.split("/")[0] for name in ODD}
    storage.remove(folder / ODD[0])
    storage.remove(folder / "none")
    assert not storage.is_folder(folder / ODD[0], "X")
    assert len(storage.names_in(folder, "X")) == len(ODD) - 1
    storage.write_whole(folder / "run1*" / "x", "what the name would match as a pattern")
    storage.remove(folder / "run[1]*")
    assert "run[1]*" not in storage.names_in(folder, "X")
    assert "run1*" in storage.names_in(folder, "X")


def test_a_glob_lists_its_files(store):
    folder = store.folder()
    for number in range(3):
        storage.write_whole(f"{folder}/train-{number}.jsonl", "x" * number)
    storage.write_whole(f"{folder}/sub/train-4.jsonl", "x")
    found = storage.list_files(f"{folder}/train-*.jsonl", "X")
    assert found == {f"{folder}/train-{n}.jsonl": n for n in range(3)}
    everything = storage.list_files(f"{folder}/**", "X")
    assert everything == {**found, f"{folder}/sub/train-4.jsonl": 1}


def test_a_files_hash_changes_with_its_content(store):
    folder = store.folder()
    for name in "ab":
        storage.write_whole(f"{folder}/{name}.jsonl", name)
    before = storage.list_hashes(f"{folder}/*.jsonl", "X")
    assert before.keys() == {f"{folder}/a.jsonl", f"{folder}/b.jsonl"}
    assert len(set(before.values())) == 2
    storage.write_whole(f"{folder}/a.jsonl", "b")
    after = storage.list_hashes(f"{folder}/*.jsonl", "X")
    assert after[f"{folder}/a.jsonl"] == after[f"{folder}/b.jsonl"] == before[f"{folder}/b.jsonl"]
    assert storage.list_hashes("/etc/host*", "X") == {}


def test_the_files_of_a_folder_and_their_bytes(store, tmp_path):
    for folder in (storage.as_path(f"{store.folder()}/a [b]", "X"), tmp_path / "a [b]"):
        assert storage.sizes_in(folder, "X") == {}
        for name in ("1", "22", "sub/333"):
            storage.write_whole(folder / name, name)
        assert storage.sizes_in(folder, "X") == {"1": 1, "22": 2}


def test_a_bucket_is_there_or_is_named(store):
    storage.check_bucket(f"{store.root}/none", "X")
    storage.check_bucket("/none", "X")
    says = "^X='.*-missing/a' cannot be read: there is no bucket 'a-bucket-missing': make it"
    with pytest.raises(UserError, match=says):
        storage.check_bucket(f"{store.root}-missing/a", "X")


def test_a_large_file_is_read_and_uploaded_in_parts(store):
    url, content = f"{store.folder()}/large", bytes(range(256)) * 30_000
    with storage.whole_file(url) as part:
        part.write_bytes(content)
        assert storage.size_of(url, "X") is None
    assert storage.read_bytes(url, "X") == content


def test_faults_of_every_kind_change_nothing(store, quick):
    """A tenth of all requests: errors, resets, cut bodies, answers that were lost."""
    store.choose = object_stores.at_random(0.1, seed=3)
    folder = store.folder()
    for number in range(20):
        storage.write_whole(f"{folder}/{number}", f"{number}" * 5000)
    for number in range(20):
        assert storage.read_bytes(f"{folder}/{number}", "X") == b"%d" % number * 5000
        assert storage.size_of(f"{folder}/{number}", "X") == len(f"{number}") * 5000
    assert storage.names_in(folder, "X") == {str(number) for number in range(20)}


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, r"no valid credentials: for gs:// run `gcloud .*AWS_ACCESS_KEY_ID"),
        (403, r"permission denied: this account needs to read, list, write and delete"),
    ],
)
def test_refusals_say_which_and_what_to_do(store, status, says):
    """At once, and without trying again."""
    url = f"{store.folder()}/file"
    store.choose = lambda method, path: status
    with pytest.raises(UserError, match=rf"MODEL_DIR leads to .*/file', which cannot .*{says}"):
        storage.read_if_there(url, "MODEL_DIR")
    with pytest.raises(UserError, match=rf"MODEL_DIR leads to .*/file', which cannot .*{says}"):
        storage.is_file(url, "MODEL_DIR")
    with pytest.raises(RunError, match=rf"/file cannot be written \({says}"):
        storage.write_whole(url, "x")
    with pytest.raises(UserError, match=rf"DIR='a' cannot be written to \({says}"):  # noqa: SIM117
        with storage.exclusive_lock(url, "DIR='a'", "switchx test"):
            pass
    assert sum(n for key, n in store.requests.items() if isinstance(key, str)) <= 8


def test_a_bucket_that_is_missing(store):
    url = f"{store.root}-which-is-not/file"
    assert storage.read_if_there(url, "X") is None
    says = r"there is no bucket 'a-bucket-which-is-not': make it, or correct the name"
    with pytest.raises(RunError, match=says):
        storage.write_whole(url, "x")
    with pytest.raises(UserError, match=says), storage.exclusive_lock(url, "DIR='a'", "test"):
        pass


def test_one_line_when_every_try_failed(store, quick):
    store.choose = lambda method, path: 503
    with pytest.raises(RunError, match=r"/file cannot be written \(.*, after 6 tries\)\.$"):
        storage.write_whole(f"{store.folder()}/file", "x")


def test_a_file_that_grows_is_uploaded_by_period(gs, monkeypatch):
    """However many rows are flushed; what a resume dropped is gone before anything is added."""
    url = f"{gs.folder()}/metrics.jsonl"
    storage.write_whole(url, "1\n2\n3\n")
    gs.requests.clear()
    rows = storage.open_appender(url, keep=lambda content: content[:4])
    assert storage.read_bytes(url, "X") == b"1\n2\n"
    for number in range(1000):
        rows.append(b"%d\n" % number)
        rows.flush()
    rows.sync()
    written = b"1\n2\n" + b"".join(b"%d\n" % number for number in range(1000))
    assert storage.read_bytes(url, "X") == written
    rows.append(b"last\n")
    rows.close()
    assert storage.read_bytes(url, "X") == written + b"last\n"
    assert gs.requests["POST"] <= 4


def test_what_was_flushed_is_there_after_the_period(gs, monkeypatch):
    monkeypatch.setattr(appending, "PERIOD", 0.01)
    url = f"{gs.folder()}/rows"
    rows = storage.open_appender(url)
    for number in range(5):
        rows.append(b"%d\n" % number)
        rows.flush()
        for _ in itertools.takewhile(
            lambda _, n=number: f"{n}\n".encode() not in (storage.read_if_there(url, "X") or b""),
            range(1000),
        ):
            pass
        assert storage.read_bytes(url, "X").endswith(b"%d\n" % number)
    rows.close()


def test_rows_that_cannot_be_uploaded_end_the_run(gs, quick):
    rows = storage.open_appender(f"{gs.folder()}/rows")
    gs.choose = lambda method, path: 403
    rows.append(b"x")
    with pytest.raises(RunError, match="permission denied"):
        rows.sync()
    with pytest.raises(RunError, match="permission denied"):
        rows.close()


def test_a_new_directory_is_uploaded_head_last(store):
    target = storage.as_path(store.folder(), "--output")
    with storage.new_directory(target, "--output", "config.json") as part:
        (part / "config.json").write_text("{}")
        (part / "deep" / "er").mkdir(parents=True)
        (part / "deep/er/weights").write_text("w")
        (part / "z").write_text("z")
    assert storage.names_in(target, "X") == {"config.json", "deep", "z"}
    assert storage.read_bytes(target / "deep/er/weights", "X") == b"w"
    with pytest.raises(UserError, match=r"--output='.*' exists already: give the name of a new"):
        storage.check_new(target, "--output")


def test_whether_a_new_place_can_be_written_to(store):
    """Is tried before anything is made for it, and leaves nothing."""
    url = f"{store.folder()}/a b#1/file"
    assert str(storage.check_new(url, "--output")) == url
    assert storage.names_in(url, "X") == set()
    missing = f"{store.root}-which-is-not/file"
    with pytest.raises(UserError, match=r"written to \(there is no bucket 'a-bucket-"):
        storage.check_new(missing, "--output")
    store.choose = lambda method, path: 403 if method in ("POST", "PUT") else None
    with pytest.raises(UserError, match=r"--output='.*' cannot be written to \(permission denied"):
        storage.check_new(url, "--output")


def test_one_whose_upload_was_cut_off_has_no_head_and_is_written_again(gs, quick):
    target = storage.as_path(gs.folder(), "--output")

    def upload():
        with storage.new_directory(target, "--output", "head") as part:
            for name in ("a", "b", "head"):
                (part / name).write_text(name)

    sent = []

    def choose(method, path):
        sent.append(method)
        return 403 if method == "POST" and sent.count("POST") > 2 else None

    gs.choose = choose
    with pytest.raises(RunError, match="permission denied"):
        upload()
    gs.reset()
    assert storage.names_in(target, "X") == {".unfinished", "a"}
    assert storage.check_new(target, "--output") == target
    upload()
    assert storage.names_in(target, "X") == {"a", "b", "head"}


def test_a_name_is_no_pattern(store):
    """What `[1]*` would match as one stays where it is."""
    folder = storage.as_path(store.folder(), "X")
    for name in ("run[1]*/a", "run1z/b", "c?/d"):
        storage.write_whole(folder / name, name)
    storage.remove(folder / "run[1]*")
    assert storage.names_in(folder, "X") == {"run1z", "c?"}
    aside = storage.set_aside(folder / "c?", folder / "damaged[1]")
    assert storage.read_bytes(aside / "d", "X") == b"c?/d"
    assert storage.names_in(folder, "X") == {"run1z", "damaged[1]"}


def test_a_new_place_is_marked_until_it_is_whole(store):
    target = storage.as_path(store.folder(), "--model_dir") / "a b#1"

    def fail():
        with storage.new_place(target, "--model_dir") as place:
            storage.write_whole(place / "deep/a", "x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not storage.is_folder(target, "X")
    for name in (".unfinished", "left of a kill"):
        storage.write_whole(target / name, "")
    with storage.new_place(target, "--model_dir") as place:
        storage.write_whole(place / "deep/a", "x")
        assert storage.names_in(target, "X") == {".unfinished", "deep"}
    assert storage.names_in(target, "X") == {"deep"}
    with pytest.raises(UserError, match="exists already"):  # noqa: SIM117
        with storage.new_place(target, "--model_dir"):
            pass


def test_what_is_set_aside_is_moved(store):
    folder = storage.as_path(store.folder(), "X")
    storage.write_whole(folder / "4/a/b", "x")
    aside = storage.set_aside(folder / "4", folder / "damaged")
    assert storage.read_bytes(aside / "a/b", "X") == b"x"
    assert storage.names_in(folder, "X") == {"damaged"}


def test_nobody_asks_google_what_kind_a_bucket_is():
    """Whoever imported gcsfs, and whatever the variable was then."""
    code = "import gcsfs; from switchx.storage import paths; paths.as_path('gs://b/x'); "
    code += "print(type(paths.file_system('gs://b/x')[0]).__module__)"
    env = {**os.environ, "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9", "NO_GCE_CHECK": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "gcsfs.core", done.stderr
