"""A training that is asked to stop, and what a seed fixes: stopped and resumed it ends with the same weights."""

import multiprocessing
import os
import signal
import time
import traceback
from pathlib import Path

import pytest
import torch

from nnunetv2_levit.cli.exit_codes import exit_on_user_error
from nnunetv2_levit.errors import STOPPED, TrainingStoppedError, UserError, ending_of
from nnunetv2_levit.nnunet.plugin.nnunetv2_levit_plugin import _one_sentence
from nnunetv2_levit.trainers import stop_signals
from nnunetv2_levit.trainers.seeding import NumberedBatches, make_repeatable
from nnunetv2_levit.trainers.stop_signals import StopRequest, passed_on, stop_when_asked
from tests.conftest import DATASET_ID

NAME = "LeViTUNetTrainer_128s_3iterations_2epochs"


@pytest.fixture
def environment(preprocessed, monkeypatch, tmp_path):
    for name, value in preprocessed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    return monkeypatch


def trainer(environment, *, seed, fold=0, workers=1):
    """A trainer as `nnUNetv2_train` makes it, without its pictures."""
    from nnunetv2.run.run_training import get_trainer_from_args

    environment.setenv("nnUNet_levit_seed", str(seed))
    environment.setenv("nnUNet_n_proc_DA", str(workers))
    result = get_trainer_from_args(str(DATASET_ID), "2d_p48x40", fold, NAME, device=torch.device("cpu"))
    result.plot_network_architecture = lambda: None
    result.logger.plot_progress_png = lambda folder: None
    return result


def weights(path):
    return torch.load(path, weights_only=False)["network_weights"]


@pytest.mark.slow
def test_a_stopped_and_resumed_training_ends_with_the_weights_of_an_undisturbed_one(environment):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR2)]
    whole = trainer(environment, seed=5, workers=2)
    whole.run_training()
    final = Path(whole.output_folder) / "checkpoint_final.pth"
    expected = weights(final)
    final.unlink()

    stopped = trainer(environment, seed=5)
    train_step, sent = stopped.train_step, []

    def step(batch):
        if not sent:  # to the training and, as Slurm does, to its workers
            sent.extend([os.getpid(), *(p.pid for p in multiprocessing.active_children())])
            for pid in sent[::-1]:
                os.kill(pid, signal.SIGUSR2)
        return train_step(batch)

    stopped.train_step = step
    with pytest.raises(TrainingStoppedError, match=r"after epoch 0; .* resume with --c") as ended:
        stopped.run_training()
    assert ending_of(ended.value) == (str(ended.value), STOPPED)
    assert len(sent) == 3
    assert not final.exists()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR2)] == handlers
    assert not multiprocessing.active_children()  # or a thread that waits for them ends with a traceback

    resumed = trainer(environment, seed=5)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 1
    resumed.run_training()
    found = weights(final)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_another_seed_has_other_weights_from_the_start(environment):
    first, again, other = (trainer(environment, seed=seed) for seed in (1, 1, 2))
    for one in (first, again, other):
        one.initialize()
    states = [list(one.network.state_dict().values()) for one in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))


def test_a_seed_that_is_no_number_is_refused_in_a_sentence(environment):
    with pytest.raises(UserError, match="nnUNet_levit_seed is 'one'"):
        trainer(environment, seed="one")


def test_a_stop_comes_through_from_a_process_of_several_gpus():
    """As torch.multiprocessing hands it on, which tests/nnunet/test_replacements.py sees with a real process."""
    said = "".join(traceback.format_exception(TrainingStoppedError("stopped as asked")))
    handed_on = torch.multiprocessing.ProcessRaisedException(said, error_index=1, error_pid=2)
    assert ending_of(handed_on) == ("stopped as asked", STOPPED)


def test_a_stop_ends_nnunets_commands_and_ours_with_a_code_of_its_own(capsys):
    error = TrainingStoppedError("stopped as asked")
    with pytest.raises(SystemExit) as of_nnunet:
        _one_sentence(type(error), error, None)
    with pytest.raises(SystemExit) as of_ours, exit_on_user_error():
        raise error
    assert (of_nnunet.value.code, of_ours.value.code) == (STOPPED, STOPPED)
    assert capsys.readouterr().err == "stopped as asked\n" * 2


class Random:
    """A loader that draws a number."""

    def set_thread_id(self, thread_id):
        pass

    def __next__(self):
        return float(torch.rand(1))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_batch_is_the_same_whichever_worker_draws_it_and_wherever_counting_begins(workers):
    expected = [next(NumberedBatches(Random(), key=(3, 1), first=number, workers=1)) for number in range(12)]
    assert len(set(expected)) == 12
    for first in (0, 5):
        drawn = {}
        for worker in range(workers):
            batches = NumberedBatches(Random(), key=(3, 1), first=first, workers=workers)
            batches.set_thread_id(worker)
            for number in range(first + worker, 12, workers):
                drawn[number] = next(batches)
        assert [drawn[number] for number in range(first, 12)] == expected[first:]


def test_a_worker_computes_with_one_thread(monkeypatch):
    """A forked worker has none of its parent's threads: with two it waited for ever in the first FFT of a blur."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    NumberedBatches(Random(), key=(3, 1), first=0, workers=1).set_thread_id(0)
    assert asked == [1]


class ForeignTrainer:
    """What a trainer of nnU-Net has that is not ours and makes its data loaders in a way of its own."""

    is_ddp, local_rank, current_epoch, num_epochs, disable_checkpointing = False, 0, 0, 3, False
    num_iterations_per_epoch = num_val_iterations_per_epoch = 1
    dataloader_train = dataloader_val = None

    def __init__(self, folder):
        self.output_folder, self.said, self.saved = str(folder), [], []

    def initialize(self):
        self.drawn = float(torch.rand(1))

    def get_dataloaders(self):
        return "its own", "loaders"

    def on_train_epoch_start(self):
        pass

    def save_checkpoint(self, filename):
        self.saved.append((Path(filename).name, self.current_epoch + 1))

    def print_to_log_file(self, text):
        self.said.append(text)

    def on_epoch_end(self):
        self.current_epoch += 1

    def run_training(self):
        self.initialize()
        self.loaders = self.get_dataloaders()
        while self.current_epoch < self.num_epochs:
            self.on_train_epoch_start()
            if self.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            self.on_epoch_end()


def test_a_foreign_trainer_is_seeded_and_stopped_too(tmp_path):
    first, second = ForeignTrainer(tmp_path), ForeignTrainer(tmp_path)
    for one in (first, second):
        make_repeatable(one, 4)
        stop_when_asked(one)
        with pytest.raises(TrainingStoppedError, match="after epoch 1"):
            one.run_training()
        assert one.saved == [("checkpoint_latest.pth", 2)]
        assert one.loaders == ("its own", "loaders")
        assert "fixes the weights only" in one.said[0]
    assert first.drawn == second.drawn


def test_a_training_without_checkpoints_does_not_say_that_one_is_saved(tmp_path):
    trainer = ForeignTrainer(tmp_path)
    trainer.disable_checkpointing = True
    stop_when_asked(trainer)
    with pytest.raises(TrainingStoppedError, match="after epoch 1; nothing is saved"):
        trainer.run_training()


def _note_a_signal(pipe):
    request = StopRequest()
    request.watch()
    pipe.send("ready")
    while request.signal is None:
        time.sleep(0.01)
    pipe.send(str(request))


def test_the_launcher_of_several_gpus_passes_the_signal_on(monkeypatch):
    """Slurm and a person send it to the process that they started, which trains nothing itself."""
    here, there = multiprocessing.Pipe()
    before = signal.getsignal(signal.SIGUSR2)
    process = multiprocessing.get_context("fork").Process(target=_note_a_signal, args=(there,), daemon=True)
    own = []
    signal.signal(signal.SIGUSR2, lambda number, _: own.append(number))
    handler = signal.getsignal(signal.SIGUSR2)
    monkeypatch.setattr(stop_signals.multiprocessing, "active_children", lambda: [process] if process.pid else [])
    with passed_on():
        os.kill(os.getpid(), signal.SIGUSR2)  # before there is a process
        assert own == [signal.SIGUSR2]
    with passed_on():
        process.start()
        assert here.poll(60)
        here.recv()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert here.poll(60)
        assert here.recv() == "SIGUSR2"
    process.join(60)
    assert own == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is handler
    signal.signal(signal.SIGUSR2, before)
