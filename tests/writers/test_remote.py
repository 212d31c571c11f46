"""Writers of a run in a bucket: event files and the run's id lie there, trackers' files here."""

from pathlib import Path

from switchx import storage
from switchx.writers import Writers, group
from tests.writers.rows import facts, png, row, values


def test_a_run_in_a_bucket(gs, tmp_path, monkeypatch):
    monkeypatch.setenv("SWITCHX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(group, "PATIENCE", 600)  # a loaded machine may take its time
    url, said = f"{gs.folder()}/a run", []
    for step in (0, 10):
        writers = Writers(facts(url), ["tensorboard", "mlflow"] if step else ["tensorboard"])
        writers.begin(step, [row(10)] if step else [], said.append)
        writers.write(row(step + 10))
        writers.picture(step + 10, "loss", png())
        writers.sync()
        assert len(names(url, "tensorboard/train")) == 1 + step // 10
        writers.close("finished")
    local = tmp_path / "cache/writers" / url.replace("://", "/")
    assert said == [f"switchx: what metric writers keep in files of their own is in {local}"]
    assert {path.name for path in local.iterdir()} == {"mlruns", "mlartifacts"}
    assert names(url) == {"tensorboard", "writers.json"}
    copied = copy(url, tmp_path / "copied")
    assert values(copied, "train")["loss"][0] == 20
    assert values(copied)["loss"][1].image.encoded_image_string == png()


def names(url, folder=""):
    return storage.names_in(storage.as_path(url) / folder, "MODEL_DIR")


def copy(url: str, here: Path) -> Path:
    """The event files, on this machine."""
    for folder in ("tensorboard", "tensorboard/train"):
        for name in names(url, folder) - {"train"}:
            content = storage.read_bytes(f"{url}/{folder}/{name}", "MODEL_DIR")
            storage.write_whole(here / folder / name, content)
    return here
