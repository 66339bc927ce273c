"""The environment models' mains as a user runs them: training, resuming after kills, the table, refusals."""

import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.environment_models import agent as agents
from experiments.environment_models import config as configs
from experiments.environment_models import data as sequences
from experiments.environment_models import doctor, phases, predictions
from tests import exporting, mains
from tests.fakes import SPEC, random_steps
from tests.mains import assert_as_whole, metrics, summary
from wmjax import doctor as doctors
from wmjax import memory, replay
from wmjax.models import state_space
from wmjax.run import devices, jobs
from wmjax.storage import datasets, workdir
from wmjax.train import make_phase
from wmjax.types import Learner, UsageError

MAIN = "environment_models"
MESH = devices.make_mesh("1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return mains.whole_run(tmp_path_factory, MAIN)


def test_run_leaves_what_a_user_expects(whole):
    folder, _ = whole
    rows = metrics(folder)
    assert [row["updates"] for row in rows] == [2, 4, 6]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert {"train/image", "train/reward", "train/kl", "eval/loss", "eval/loss_tighter"} < set(rows[0])
    for row in rows:
        assert row["train/loss"] == pytest.approx(sum(row[f"train/{name}"] for name in ("image", "reward", "kl")))
        assert row["eval/loss_tighter"] == pytest.approx(row["eval/loss"], rel=0.05)
    told = summary(folder)
    assert told["finished"] and told["updates"] == 6
    assert [each["eval/loss"] for each in told["evaluations"]] == [row["eval/loss"] for row in rows]
    assert (folder / "videos" / "futures_0000006.png").stat().st_size > 0
    page = (folder / "report.html").read_text()
    assert "Futures" in page and "eval/loss" in page and "ball:diffusing" in page


def test_every_program_of_a_run_lowers_for_accelerators(whole):
    found = mains.exports(whole)
    assert not any(found.values()), found
    assert (
        exporting.sites(*(f"experiments/{MAIN}/{name}.py" for name in ("__main__", "agent", "data", "predictions")))
        <= found.keys()
    )


def test_a_run_stopped_and_killed_ends_bit_identical(whole, tmp_path):
    """Told to end in the first dispatch, of one update; killed before its last checkpoint.

    Before every move: tests/run/test_lifecycle.py.
    """
    folder = tmp_path / "run"
    stopped = mains.start(folder, experiment=MAIN, stop_at=("experiments.environment_models.__main__:check_finite", 1))
    assert stopped.code == 75 and stopped.stderr.endswith("stopped by SIGTERM: the same command goes on\n")
    assert summary(folder)["updates"] == 1 and summary(folder)["planned"] == dict(updates=6) and metrics(folder) == []
    killed = mains.start(folder, experiment=MAIN, kill_at="000000000006/manifest.json")
    assert killed.code == -signal.SIGKILL and [row["updates"] for row in metrics(folder)] == [2, 4]
    resumed = mains.start(folder, experiment=MAIN)
    assert resumed.code == 0, resumed.stderr
    assert_as_whole(folder, whole)


@pytest.mark.slow
def test_a_run_timed_and_prolonged_ends_bit_identical(whole, tmp_path):
    """Ended by the clock after the third update, finished after the fourth, prolonged then."""
    folder = tmp_path / "run"
    timed = mains.start(folder, experiment=MAIN, over_at=5)  # an evaluation is a turn of the loop too
    assert timed.code == 0, timed.stderr
    assert [each["updates"] for each in summary(folder)["evaluations"]] == [2, 3] and not summary(folder)["finished"]
    assert (folder / "videos" / "futures_0000003.png").stat().st_size > 0
    shorter = mains.start(folder, "--config.train.updates=4", experiment=MAIN)
    assert shorter.code == 0 and "train.updates 6 -> 4" in shorter.stderr and summary(folder)["finished"]
    assert [each["updates"] for each in summary(folder)["evaluations"]] == [2, 4]
    prolonged = mains.start(folder, experiment=MAIN)
    assert prolonged.code == 0 and "train.updates 4 -> 6" in prolonged.stderr
    assert_as_whole(folder, whole)


@pytest.mark.slow
def test_jumpy_and_pixel_models_run(tmp_path):
    for name, flags in (
        ("jumpy", ("--config.model.jump=2",)),
        ("ar", ("--config=experiments/environment_models/config.py:ball:drifting,ar,cpu", "--config.model.order=2")),
    ):
        ended = mains.start(tmp_path / name, *flags, "--config.train.updates=2", experiment=MAIN)
        assert ended.code == 0, ended.stderr
        rows = metrics(tmp_path / name)
        assert len(rows) == 1 and ("train/kl" in rows[0]) == (name == "jumpy")


def record(folder, count):
    """A folder of `count` shards of noise, 16 rows of two environments each; adds those that it lacks."""
    index = datasets.open_folder(folder, dict(game="noise"), SPEC)
    for number in range(len(index["shards"]), count):
        steps = jax.tree.map(lambda x: np.swapaxes(x, 0, 1), random_steps(SPEC, 2, 16, seed=number))
        index = datasets.add(folder, index, number, steps.replace(reward=np.sign(steps.reward)))
    workdir.close_workdir(folder)


def test_the_doctor_looks_at_images_on_the_host_too(tmp_path, monkeypatch):
    """As the main it begins at their mean image, and it counts their bytes."""
    record(tmp_path / "data", 3)
    config = configs.get_config(f"{tmp_path / 'data'},sssm,cpu_games")
    needs, counted = [], []
    monkeypatch.setattr(doctors, "room", lambda workdir, need: needs.append(need) or [])
    nbytes = memory.nbytes
    monkeypatch.setattr(memory, "nbytes", lambda tree: counted.append(nbytes(tree)) or counted[-1])
    monkeypatch.setattr(doctor, "SECONDS", 0.01)  # of updates and evaluations that do nothing
    monkeypatch.setattr(phases, "make_training", lambda *_: lambda state, keys: (state, {}))
    monkeypatch.setattr(predictions, "make_evaluate", lambda *_: lambda *_: {})
    for config.data.images in ("device", "host"):
        point, time = doctor.run_points(agents.read_settings(config), None)
        assert point.name == "data" and "2 sequences to train on and 2 held out" in point.result
        assert time.name == "time" and time.result.startswith("about 0 minutes")
    assert needs[0] == needs[1] and needs[0].disk > 0
    data_on_device, _, data_on_host, _ = counted
    assert data_on_host - data_on_device == 4 * 3 * 16 * 2  # a number for each image


def test_recorded_data_are_learned_and_damage_is_named(tmp_path):
    folder = tmp_path / "data"
    record(folder, 3)
    learn = (
        f"--config=experiments/environment_models/config.py:{folder},sssm,cpu_games",
        "--config.train.updates=2",
    )
    ended = mains.start(tmp_path / "a", *learn, "--config.data.images=host", experiment=MAIN)
    assert ended.code == 0, ended.stderr
    assert metrics(tmp_path / "a")[-1]["train/kl_weight"] == pytest.approx(1e-8, rel=0.5)
    (folder / "train_00001.npz").write_bytes(b"?")
    ended = mains.start(tmp_path / "a", *learn, experiment=MAIN)
    assert ended.code == 0 and "train_00001.npz is damaged" in ended.stderr  # the data are the same, less a part
    assert "data.images host -> device" in ended.stderr
    record(folder, 4)
    ended = mains.refused(tmp_path / "a", *learn, experiment=MAIN)
    assert ended.code == 2 and "holds a run with another config: recorded" in ended.stderr
    config = configs.get_config(f"{folder},sssm,cpu_games")
    assert sequences.load(agents.read_settings(config), MESH).train.rows.reward.shape == (2, 32)  # two shards of three
    config.train.predicted = 40
    with pytest.raises(UsageError, match="no train episode has 43 rows"):
        sequences.load(agents.read_settings(config), MESH)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config=experiments/environment_models/config.py:ball,sssm", "give <data>,<model>,<preset>"),
        ("--config=experiments/environment_models/config.py:ball,ssm,cpu", "model one of sssm, dssm_vae"),
        ("--config=experiments/environment_models/config.py:ball:jumping,sssm,cpu", "unknown ball task 'jumping'"),
        ("--config=experiments/environment_models/config.py:nowhere,sssm,cpu", "nowhere holds no recorded data"),
        ("--config.data.size=4", "size=4"),
        ("--config.data.images=host", "config.data.images=host: is for recorded folders"),
        ("--config.data.images=disk", "unknown config.data.images 'disk'"),
        ("--config.data.length=6", "config.data.length=6: a chunk of this model has 7 rows"),
        ("--config.model.jump=3", "config.model.jump=3: does not divide config.train.predicted=4"),
        ("--config.model.channels=9", "channels 9"),
        ("--config.train.every=4", "config.train.every=4: must divide config.train.updates=6"),
        ("--config.model.kl_anneal_target=1.0", "kl_anneal_target 1.0: must be at least 0 and below 1"),
        ("--config.train.batch=0", "config.train.batch=0: must be at least 1"),
        ("--config.evaluation.draws=0", "config.evaluation.draws=0"),
        ("--config.seed=-1", "config.seed=-1"),
        ("--config.model.chanels=8", "did you mean channels?"),
        ("--config.data.train_sequences=100000000", "GB are free"),
    ],
)
def test_bad_input_ends_in_one_line(flag, message, tmp_path):
    ended = mains.refused(tmp_path / "run", flag, experiment=MAIN)
    assert ended.code == 2 and message in ended.stderr
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_another_model_is_refused_in_the_same_folder(whole):
    ended = mains.refused(whole[0], "--config.model.learning_rate=0.1", experiment=MAIN)
    assert ended.code == 2 and "learning_rate" in ended.stderr and "Traceback" not in ended.stderr


def tiny_settings(size=16, **model):
    config = configs.get_config("ball,sssm,cpu")
    config.data.update(size=size, length=20, train_sequences=4, test_sequences=40)
    config.model.update(channels=8, encoder_width=8, decoder_width=8, reward_digits=2, **model)
    config.train.update(batch=4)
    config.evaluation.update(chunks=8, draws=3)
    return agents.read_settings(config)


def test_data_are_the_same_for_every_seed_and_test_data_are_others():
    one, two = (sequences.load(tiny_settings(), MESH) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    firsts = {image.tobytes() for image in np.array(one.train.rows.obs[:, 0])}
    assert not firsts & {image.tobytes() for image in np.array(one.test.rows.obs[:, 0])}


def test_evaluation_is_the_bound_of_every_chunk_a_step(monkeypatch):
    """Of a score that tells whose parameters, which chunk and how many draws it was asked about."""
    settings = tiny_settings()
    data = sequences.load(settings, MESH)
    chunks = sequences.held_out(settings, data.test)
    assert chunks.reward.shape == (8, 13)
    weights = np.arange(16, dtype=np.float32)  # of an image's places

    def score(params, key, batch, draws):
        bound = params * draws * (batch.obs.mean((1, 3, 4)) @ weights + batch.reward.sum(1))
        return dict(bound=bound, tighter=bound + jax.random.uniform(key))

    monkeypatch.setattr(state_space, "make_score", lambda config, spec: score)
    found = predictions.make_evaluate(settings, data.spec, MESH)(np.float32(2), jax.random.key(0), chunks)
    obs, reward = np.asarray(chunks.obs), np.asarray(chunks.reward)
    bounds = 2 * 3 * (obs.mean((1, 3, 4)) @ weights + reward.sum(1))
    np.testing.assert_allclose(found["loss"], -bounds / 10, rtol=1e-5)
    assert len(np.unique(bounds)) == 8
    more = 10 * (found["loss"] - found["loss_tighter"])  # of two batches of four, a key each
    assert (0 < more).all() and (more < 1).all() and abs(more[0] - more[4]) > 1e-3


def test_futures_begin_alike_and_part():
    settings = tiny_settings(18)  # is padded
    data = sequences.load(settings, MESH)
    model, learner = state_space.make(settings.model, data.spec)
    params = learner.init(jax.random.key(0)).params
    chunk, truth = predictions.pictured(settings, sequences.held_out(settings, data.test))
    futures = predictions.make_futures(model, settings, data.spec)
    one, again, other = (np.asarray(futures(params, jax.random.key(i), chunk)) for i in (0, 0, 1))
    assert one.shape == (predictions.SAMPLES, *truth.shape) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert (one[0, 3:] != one[1, 3:]).any() and (one != other).any()


def test_models_of_games_begin_at_the_mean_of_their_data():
    settings = tiny_settings(18, contrast=16.0, last_layer_scale=0.0)
    data = sequences.load(settings, MESH)
    model, learner = state_space.make(settings.model, data.spec)
    state = agents.make_init(learner, settings, MESH)(jax.random.key(0), data.train)
    first = jax.nn.sigmoid(jax.jit(model.decode)(state.params, model.initial(state.params, 1)))
    mean = np.asarray(data.train.rows.obs).mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(first[0], mean.clip(0.5 / 255, 1 - 0.5 / 255), atol=1e-5)
    assert 0.01 < mean.mean() < 0.99


def test_phase_is_a_loop_of_updates():
    settings = tiny_settings()
    data = sequences.load(settings, MESH)
    settings = settings._replace(train=configs.TrainConfig(updates=2, batch=4, every=2))

    def learn(state, key, batch):
        """Every state tells the batches and the draws that led to it."""
        state = 0.5 * state + batch.obs.mean() + batch.reward.sum() + jax.random.normal(key)
        return state, dict(loss=state, rows=batch.reward.size)

    learner = Learner(None, learn)
    state, key = jnp.float32(1), jax.random.key(1)
    expected = state
    for each in jax.random.split(key, 2):
        sample_key, update_key = jax.random.split(each)
        batch = replay.sample_within_episodes(data.train, sample_key, 4, 13)
        expected, metrics = learn(expected, update_key, batch)
    state, losses = make_phase(phases.make_update(learner, settings, MESH), donate=True)(
        state, data.train, jax.random.split(key, 2)
    )
    np.testing.assert_allclose(losses["loss"][-1], metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(state, expected, rtol=1e-5)
    assert losses["rows"].tolist() == [4 * 13] * 2


def test_images_on_the_host_are_learned_as_those_on_the_device(tmp_path):
    """The same held-out chunks, updates and parameters, bit for bit; the mean image to rounding."""
    record(tmp_path, 4)
    config = configs.get_config(f"{tmp_path},vae,cpu_games")
    config.model.update(channels=8, encoder_width=8, decoder_width=8, reward_digits=2)
    config.train.update(batch=2, predicted=4)
    _, learner = state_space.make(agents.read_settings(config).model, SPEC)
    state, means, found = jax.device_get(jax.jit(learner.init)(jax.random.key(0))), [], []
    for place in ("device", "host"):
        config.data.images = place
        settings = agents.read_settings(config)
        data = sequences.load(settings, MESH)
        means.append(np.mean(sequences.background(settings, data).rows.obs, axis=(0, 1)))
        done = phases.make_training(learner, settings, data, MESH)(state, jax.random.split(jax.random.key(1), 3))
        found.append((sequences.held_out(settings, data.test, data.test_images), done))
    assert data.train.rows.obs.dtype == np.int32 and len(data.train_images) == 3
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert found[1][0].obs.dtype == np.uint8 and len(np.unique(found[1][0].obs)) > 200
    np.testing.assert_allclose(*means, rtol=1e-6)


def test_table_trains_what_is_missing_and_compares(whole, tmp_path, monkeypatch):
    """The run that is there is left as it is; the same with smaller parameters stands in for the VAE's."""
    shutil.copytree(whole[0], tmp_path / "sssm_seed_0")
    before = (tmp_path / "sssm_seed_0" / "metrics.jsonl").read_text()
    asked = []

    def run_all(trainings, slots, tries):
        for training in trainings:
            asked.append(training.command)
            if not training.folder.exists():  # what is finished ends at once
                shutil.copytree(whole[0], training.folder)
            yield training, jobs.Ended(0, "", 0)

    load = agents.load

    def smaller(place):
        loaded = load(place)
        scale = 0.5 if place.name == "vae_seed_0" else 1
        return loaded._replace(params=jax.tree.map(lambda x: scale * x, loaded.params))

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.setattr(agents, "load", smaller)
    flags = [f"--set={flag.removeprefix('--config.')}" for flag in mains.ENVIRONMENT_MODELS[1:]]
    flags += ["--data=ball", "--preset=cpu", f"--folder={tmp_path}", "--models=vae,sssm", "--seeds=1", "--timed="]
    ended = mains.call("environment_models.table", *flags)
    assert ended.code == 0, ended.stderr
    command, _ = asked
    assert command[2] == "experiments.environment_models" and f"--workdir={tmp_path / 'vae_seed_0'}" in command
    assert any(word.endswith("config.py:ball,vae,cpu") for word in command) and "--config.seed=0" in command
    assert set(mains.ENVIRONMENT_MODELS[1:]) < set(command)
    text = (tmp_path / "table.md").read_text()
    assert ended.stdout.endswith(text) and "| vae " in text and "| sssm " in text
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    vae, sssm = (next(cells for cells in lines if cells[1:2] == [name]) for name in ("vae", "sssm"))
    assert float(sssm[-2]) == pytest.approx(metrics(whole[0])[-1]["eval/loss"], abs=0.06)  # one decimal is printed
    apart = float(vae[-2]) - float(sssm[-2])
    assert abs(apart) > 0.5 and float(sssm[2]) == pytest.approx(1e3 * apart / 16**2, abs=0.5)
    assert all((tmp_path / name).stat().st_size > 0 for name in ("futures.png", "curves.png"))
    assert (tmp_path / "sssm_seed_0" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--models=vae,ssm", "--models=ssm: choose from"),
        ("--models=sssm", "compared with vae"),
        ("--preset=gpu", "unknown --preset 'gpu'"),
        ("--horizons=0", "--horizons=0"),
        ("--batches=" + "9" * 5000, "--batches=9"),
        ("--horizons=10", "a multiple of 3"),
        ("--set=model.kinds=3", "config.model.kinds does not exist"),
        ("--set=model.kind=vae", "--set=model.kind=vae: give --models instead"),
        ("--set=seed=3", "--set=seed=3: give --seeds instead"),
        ("--data=bal", "/bal holds no recorded data; data are ball:diffusing, ball:drifting or a folder"),
    ],
)
def test_table_refuses_in_one_line(flag, message, tmp_path):
    ended = mains.call("environment_models.table", f"--folder={tmp_path}", flag)
    assert ended.code == 2 and message in ended.stderr and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["model.contrast=1", "seed=3", "task=ball", "train.updates=8", "model.jump=x"])
def test_ablations_refuse_settings_that_undo_their_own(setting, tmp_path):
    ended = mains.call("environment_models.ablations", "--data=ball", f"--folder={tmp_path}", f"--set={setting}")
    assert ended.code == 2 and setting.partition("=")[0] in ended.stderr and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ablations_of_data_that_are_not_there_begin_no_run(tmp_path):
    ended = mains.call("environment_models.ablations", "--data=nowhere", f"--folder={tmp_path}")
    assert ended.code == 2 and "nowhere holds no recorded data" in ended.stderr and ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_ablations_leave_out_one_helper_each(tmp_path, monkeypatch):
    def run_all(trainings, slots, tries):
        for index, training in enumerate(trainings):
            folder, settings = training.folder, mains.settings_of(training)
            config = next(word for word in training.command if word.startswith("--config="))
            with open(tmp_path / "asked.jsonl", "a") as file:
                print(json.dumps([config.partition(":")[2], *settings, *slots[index % 2].prefix]), file=file)
            loss = 70 + int(folder.name[-1]) + 5 * ("contrast" in settings[-1])
            folder.mkdir()
            (folder / "metrics.jsonl").write_text(json.dumps({"eval/loss": loss, "train/kl": 3}) + "\n")
            yield training, jobs.Ended(0, "", 0)

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.setattr(agents, "spec_of", lambda settings: None)  # nothing has been recorded
    flags = ("--data=d", f"--folder={tmp_path}", "--seeds=2", "--updates=7", "--cores=0,1", "--set=train.every=7")
    ended = mains.call("environment_models.ablations", *flags)
    assert ended.code == 0, ended.stderr
    asked = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    assert all(line[0] == "d,sssm,cpu_games" and line[2:4] == ["train.updates=7", "train.every=7"] for line in asked)
    assert {line[-1] for line in asked} == {"0", "1"} and all(line[-3:-1] == ["taskset", "-c"] for line in asked)
    changes = [tuple(line[4:-3]) for line in asked if line[1] == "seed=1"]
    names = {each[0].partition("=")[0] for each in changes if each}
    assert names == {f"model.{name}" for name in ("contrast", "last_layer_scale", "latent_std", "kl_anneal_target")}
    assert len(asked) == 10 and sorted(map(len, changes)) == [0, 1, 1, 1, 1]
    games, paper = configs.get_config("d,sssm,cpu_games").model, configs.get_config("d,sssm,paper").model
    for name, value in (each[0].removeprefix("model.").split("=") for each in changes if each):
        assert float(value) == paper[name] != games[name]
    lines = {x.split("|")[1].strip(): x for x in (tmp_path / "table.md").read_text().splitlines() if x.startswith("|")}
    assert "| 70.0, 71.0 |" in lines["all_helpers"] and "5.0 (5.0 to 5.0)" in lines["without_background"]
    assert "0.0 (0.0 to 0.0)" in lines["without_small_std"]
