"""C4 from a TFDS folder: prepared here, with a few documents."""

import pytest

from switchx.data import eval_batches, preflight, train_stream, vocabulary
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError

from ..conftest import digest, docs_config, sentences


@pytest.fixture(scope="module", params=["2.2.0", "3.1.0"])
def prepared(request, tmp_path_factory):
    """A folder that holds c4/en of a version, and that version."""
    root = tmp_path_factory.mktemp("tfds")
    texts = {"train": sentences(300), "validation": sentences(60, seed=1)}
    prepare(root / "c4" / "en" / request.param, texts)
    return str(root), request.param


def prepare(folder, texts):
    """Writes a dataset as TFDS prepares it, of the texts of each split."""
    load_tensorflow()
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    fields = ("text", "url", "timestamp")
    features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in fields})
    template = tfds.core.ShardedFileTemplate(
        dataset_name="c4",
        data_dir=folder,
        filetype_suffix="tfrecord",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    splits = [write_split(folder, split, texts[split], features, template) for split in texts]
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=splits, filename_template=template
    )


def write_split(folder, split, texts, features, template):
    """Writes two shards of a split; returns what TFDS wants to know of it."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    half = len(texts) // 2
    for shard in range(2):
        path = folder / f"c4-{split}.tfrecord-{shard:05d}-of-00002"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for text in texts[shard * half : (shard + 1) * half]:
                row = {"text": text, "url": "u", "timestamp": "t"}
                writer.write(features.serialize_example(row))
    return tfds.core.SplitInfo(
        name=split, shard_lengths=[half, half], num_bytes=1, filename_template=template
    )


def config_for(prepared, t5_model, **changes):
    folder, version = prepared
    name = {"2.2.0": "c4_v220_span_corruption", "3.1.0": "c4_v310_span_corruption"}[version]
    values = {"tfds_data_dir": folder, "vocabulary": t5_model, **changes}
    return docs_config(mixture_or_task_name=name, **values)


@pytest.mark.parametrize("prepared", ["3.1.0"], indirect=True)
def test_trains_from_prepared_files(prepared, t5_model):
    config = config_for(prepared, t5_model)
    preflight(config)
    stream = train_stream(config)
    assert digest(next(stream)) != digest(next(stream))
    state = stream.state()
    after = digest(next(stream))
    resumed = train_stream(config)
    resumed.restore(state)
    assert digest(next(resumed)) == after


def test_evaluation_reads_the_validation_text(prepared, t5_model):
    config = config_for(prepared, t5_model, feature_lengths={"inputs": 512, "targets": 114})
    words = vocabulary(config)
    text = words.decode(next(eval_batches(config))["encoder_input_tokens"][0])
    kept = text.split("<extra_id_0>")[0]
    assert len(kept) > 0
    assert kept.strip() in " ".join(sentences(60, seed=1))


def test_another_folder(prepared, t5_model, tmp_path):
    config = config_for(prepared, t5_model, tfds_data_dir=str(tmp_path))
    sentence = rf"TFDS_DATA_DIR='{tmp_path}' has no prepared dataset 'c4/en:{prepared[1]}'"
    with pytest.raises(UserError, match=sentence):
        preflight(config)
    with pytest.raises(UserError, match=sentence):
        train_stream(config)


def test_no_folder(prepared, t5_model):
    with pytest.raises(UserError, match=r"TFDS_DATA_DIR='.*', the default, has no prepared"):
        preflight(config_for(prepared, t5_model, tfds_data_dir=None))


def test_the_current_version_of_c4():
    from tensorflow_datasets.text import c4

    from switchx.data.tasks import names

    digits = str(c4._VERSION).replace(".", "")
    assert f"c4_v{digits}_span_corruption" == names.C4_TFDS
    known = {f"c4/{config.name}:{c4._VERSION}" for config in c4.C4.BUILDER_CONFIGS}
    assert known == {
        *names.ENGLISH_TFDS.values(),
        names.MC4_TFDS,
        f"c4/en.noclean:{c4._VERSION}",
    }


@pytest.mark.parametrize("variant", ["realnewslike", "webtextlike"])
def test_other_english(variant, tmp_path, t5_model):
    texts = {"train": sentences(100), "validation": sentences(60, seed=1)}
    prepare(tmp_path / "c4" / variant / "3.1.0", texts)
    config = docs_config(
        mixture_or_task_name=f"c4_{variant}_span_corruption",
        tfds_data_dir=str(tmp_path),
        vocabulary=t5_model,
    )
    text = vocabulary(config).decode(next(eval_batches(config))["encoder_input_tokens"][0])
    assert text.split("<extra_id_0>")[0].strip() in " ".join(texts["validation"])
