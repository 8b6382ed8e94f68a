"""The backends of the extra ``llm``: a GPT-2 from nothing, and adapters for a local model. `make test-llm` has it."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from app.errors import Discard
from app.history.rows import Job
from app.installation import Installation, open_installation
from app.jobs import model
from app.jobs.fields import Params
from app.jobs.model import BenchmarkParams, BenchmarkResult, EvaluateParams, EvaluateResult, FinetuneParams
from app.jobs.model import FinetuneResult as Tuned
from app.jobs.status import Status
from app.orders import Order
from app.records.models import MODELS
from app.records.training_examples import TRAINING_EXAMPLES, TrainingExample
from app.settings import Settings
from tests.support.processes import computing_children, is_alive
from tests.support.waiting import eventually
from tests.support.workplace import at_work, becomes, make_worker
from workers.families.model import benchmark, evaluate, finetune
from workers.families.model.backends import BACKENDS, Backend
from workers.families.model.examples import Example, split
from workers.families.model.files import SEEN, mark_of, read_arrays
from workers.families.model.training import Training, train
from workers.process import Report

WHY = "the extra llm (torch, transformers, peft) is not installed: run `make test-llm`"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)
pytest.importorskip("peft", reason=WHY)

pytestmark = [
    pytest.mark.timeout(300),  # a limit, not an expectation: the libraries alone take seconds to load
    pytest.mark.filterwarnings("default"),  # these libraries warn of one another
]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WORKS = {"model.finetune": finetune, "model.evaluate": evaluate, "model.benchmark": benchmark}

# Abraham Lincoln, 19 November 1863.
SPEECH = """Four score and seven years ago our fathers brought forth on this continent, a new nation,
conceived in Liberty, and dedicated to the proposition that all men are created equal.
Now we are engaged in a great civil war, testing whether that nation, or any nation so conceived and so
dedicated, can long endure. We are met on a great battle-field of that war. We have come to dedicate a
portion of that field, as a final resting place for those who here gave their lives that that nation might
live. It is altogether fitting and proper that we should do this. But, in a larger sense, we can not
dedicate -- we can not consecrate -- we can not hallow -- this ground. The brave men, living and dead, who
struggled here, have consecrated it, far above our poor power to add or detract. The world will little
note, nor long remember what we say here, but it can never forget what they did here. It is for us the
living, rather, to be dedicated here to the unfinished work which they who fought here have thus far so
nobly advanced. It is rather for us to be here dedicated to the great task remaining before us -- that
from these honored dead we take increased devotion to that cause for which they gave the last full measure
of devotion -- that we here highly resolve that these dead shall not have died in vain -- that this nation,
under God, shall have a new birth of freedom -- and that government of the people, by the people, for the
people, shall not perish from the earth."""


def phrases() -> list[Example]:
    """Cut the speech into overlapping pieces of twelve words, each a question and its answer."""
    words = SPEECH.split()
    pieces = [words[at : at + 12] for at in range(0, len(words) - 11, 4)]
    return [
        Example(id=f"p{number:03}", prompt=" ".join(piece[:6]), answer=" ".join(piece[6:]), label=None)
        for number, piece in enumerate(pieces)
    ]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute as in a child process, where sums do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings) as installation:
        await installation.records.upsert(TRAINING_EXAMPLES, [record(one, at) for at, one in enumerate(phrases())])
        save_base(settings.base_models_path / "small")
        yield installation


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_base(tmp_path / "small")
    return tmp_path / "small"


def save_base(directory: Path, *, seed: int = 1, **options: Any) -> None:
    """Save a GPT-2 of random weights, with a vocabulary of the speech."""
    from tokenizers import ByteLevelBPETokenizer

    spelling = ByteLevelBPETokenizer()
    spelling.train_from_iterator([SPEECH], vocab_size=400, special_tokens=["<end>"], show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=spelling._tokenizer, eos_token="<end>")
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2
    )
    torch.manual_seed(seed)
    transformers.GPT2LMHeadModel(config).save_pretrained(directory, **options)
    tokenizer.save_pretrained(directory)


def backend_of(name: str, base: Path) -> Backend:
    return BACKENDS[name] if name != "lora" else replace(BACKENDS[name], name="lora:small", base=base)


def training(target: Path, backend: Backend, **changes: Any) -> Training:
    learned, held_out = split(phrases())
    plain = Training(
        user_id="ada",
        backend=backend,
        examples=tuple(learned),
        held_out=tuple(held_out),
        learning_rate=5e-3,
        parent_id=None,
        parent=None,
        target=target / f"model{backend.suffix}",
        mark=mark_of("the job"),
        keep_every_s=60,
    )
    return replace(plain, **changes)


class Killed(Exception):
    """What ends an attempt in the middle."""


class Notes:
    """A report that keeps what it is told, and may end the attempt at a checkpoint."""

    def __init__(self, restored: Any = None, *, dies_at: int | None = None) -> None:
        self.restored = restored
        self.checkpoints: list[Any] = []
        self._dies_at = dies_at

    def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        pass

    def checkpoint(self, state: Any) -> None:
        self.checkpoints.append(state)
        if len(self.checkpoints) == self._dies_at:
            raise Killed


def as_report(notes: Notes) -> Report:
    return cast(Report, notes)


def untrained_perplexity(backend: Backend) -> float:
    held_out = training(Path(), backend).held_out
    judgements = [backend.load().judge(example) for example in held_out[:3]]
    loss = sum(one.loss for one in judgements) / sum(len(one.truth) for one in judgements)
    return float(torch.tensor(loss).exp())


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


# --- in this process ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "epochs"), [("gpt2-tiny", 4), ("lora", 40)])
def test_training_lowers_the_perplexity_of_text_that_was_held_out(
    tmp_path: Path, base: Path, name: str, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.families.model.causal.EPOCHS", epochs)
    backend = backend_of(name, base)

    trained = train(as_report(Notes()), training(tmp_path, backend, learning_rate=1e-2))

    assert trained.metrics.perplexity is not None
    assert trained.metrics.perplexity < 0.8 * untrained_perplexity(backend)


@pytest.mark.parametrize("name", ["gpt2-tiny", "lora"])
def test_training_goes_on_from_a_checkpoint_to_the_same_file(
    tmp_path: Path, base: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.families.model.causal.EPOCHS", 2)
    monkeypatch.setattr("workers.families.model.causal.ROUND", 2)
    backend = backend_of(name, base)
    whole = train(as_report(Notes()), training(tmp_path / "whole", backend, keep_every_s=0))
    interrupted = Notes(dies_at=3)
    with pytest.raises(Killed):
        train(as_report(interrupted), training(tmp_path / "parts", backend, keep_every_s=0))

    again = train(as_report(Notes(interrupted.checkpoints[-1])), training(tmp_path / "parts", backend, keep_every_s=0))

    assert (again.sha256, again.steps, again.stopped_early) == (whole.sha256, whole.steps, whole.stopped_early)


@pytest.mark.parametrize("name", ["gpt2-tiny", "lora"])
def test_another_learning_rate_gives_another_model(
    tmp_path: Path, base: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.families.model.causal.EPOCHS", 1)
    backend = backend_of(name, base)

    found = [
        train(as_report(Notes()), training(tmp_path / str(rate), backend, learning_rate=rate)) for rate in (1e-3, 1e-2)
    ]

    assert backend.uses == {"training_samples", "learning_rate"}
    assert len({one.sha256 for one in found}) == 2


def test_adapters_learn_and_the_base_model_stays_as_it_is(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.families.model.causal.EPOCHS", 2)
    backend, before = backend_of("lora", base), hashes(base)
    task = training(tmp_path / "tuned", backend)

    trained = train(as_report(Notes()), task)

    arrays = read_arrays(task.target, trained.sha256)
    assert hashes(base) == before
    assert arrays.keys() - {SEEN, "base"} == {name for name in arrays if "lora_" in name}
    tuned, plain = (dict(cast(Any, backend.load(some))._model.named_parameters()) for some in (arrays, None))
    changed = {name for name, weight in tuned.items() if not torch.equal(weight, plain[name])}
    assert changed
    assert all("lora_" in name for name in changed)


def test_adapters_that_learned_nothing_change_nothing(base: Path) -> None:
    example = phrases()[0]
    plain = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokens = [tokenizer.eos_token_id, *tokenizer.encode(f"{example.prompt}\n{example.answer}"), tokenizer.eos_token_id]
    with torch.no_grad():
        loss = plain(input_ids=torch.tensor([tokens]), labels=torch.tensor([tokens])).loss

    judged = backend_of("lora", base).load().judge(example)

    assert judged.loss / len(judged.truth) == pytest.approx(float(loss), rel=1e-4)


def test_a_base_model_that_was_exchanged_is_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.families.model.causal.EPOCHS", 1)
    backend, task = backend_of("lora", base), training(tmp_path / "tuned", backend_of("lora", base))
    trained = train(as_report(Notes()), task)
    save_base(base, seed=2)

    with pytest.raises(Discard, match="is not the one"):
        backend.load(read_arrays(task.target, trained.sha256))


def test_weights_that_a_pickle_holds_are_not_loaded(base: Path) -> None:
    weights = transformers.AutoModelForCausalLM.from_pretrained(base).state_dict()
    (base / "model.safetensors").unlink()
    torch.save(weights, base / "pytorch_model.bin")

    with pytest.raises(Discard, match="cannot be loaded"):
        backend_of("lora", base).load()


def test_a_model_says_the_word_that_it_has_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.families.model.causal.EPOCHS", 200)
    backend = BACKENDS["gpt2-tiny"]
    learner = backend.load()
    examples = [Example(id=f"e{at}", prompt="the sky is", answer="blue and wide", label=None) for at in range(10)]

    for step in learner.steps(examples, 3e-3, first=0):
        if step.done == 150:
            break

    assert learner.answer("the sky is\n") == "blue"
    assert learner.score("the sky is\n", "blue") > learner.score("the sky is\n", "green")


# --- through a worker --------------------------------------------------------------------------


def record(one: Example, number: int) -> TrainingExample:
    return TrainingExample(
        example_id=one.id,
        user_id="ada",
        timestamp=NOW - timedelta(minutes=number),
        input_text=one.prompt,
        output_text=one.answer,
        quality=0.9,
    )


async def submit(house: Installation, job_type: Any, params: Params) -> str:
    (job,) = await house.lifecycle.submit([Order(job_type=job_type, params=params, owner="ada", user_id="ada")])
    return job.id


async def complete(house: Installation, job_type: Any, params: Params) -> Any:
    """Run one job to its end; return its result."""
    job_id = await submit(house, job_type, params)

    async def look() -> Job | None:
        job = await house.reader.get(job_id)
        return job if job and job.status.is_final else None

    job = await eventually(look, within=200)
    assert job.status is Status.COMPLETED, job.error
    return job_type.result.model_validate(job.result)


@pytest.mark.parametrize("name", ["gpt2-tiny", "lora:small"])
async def test_a_model_is_tuned_judged_and_benchmarked_through_a_worker(house: Installation, name: str) -> None:
    async with at_work(make_worker(house, cast(Any, WORKS), queues=(model.finetune.queue,))):
        asked = FinetuneParams(user_id="ada", model_name=name, training_samples=20, learning_rate=5e-3)
        tuned: Tuned = await complete(house, model.finetune, asked)
        judging = EvaluateParams(user_id="ada", model_name=tuned.name, test_samples=5)
        judged: EvaluateResult = await complete(house, model.evaluate, judging)
        tasks: BenchmarkResult = await complete(
            house, model.benchmark, BenchmarkParams.model_validate({"model_name": tuned.name, "scenarios": ["writing"]})
        )

    version = await house.records.get(MODELS, tuned.model_id, user_id="ada")
    assert version is not None
    assert (version.kind, version.path, version.sha256) == (name, tuned.path, tuned.sha256)
    assert tuned.path.endswith(".safetensors")
    assert sha256((house.settings.models_path / tuned.path).read_bytes()).hexdigest() == tuned.sha256
    assert tuned.ignored_parameters == ()
    assert tuned.metrics.perplexity == pytest.approx(float(torch.tensor(tuned.metrics.loss).exp()), rel=1e-3)
    assert judged.test_samples == 5
    assert judged.baseline.model == name
    assert judged.metrics.loss is not None
    assert judged.baseline.metrics.loss is not None
    assert judged.metrics.loss < judged.baseline.metrics.loss
    assert 0 <= tasks.overall_accuracy <= 1
    assert tasks.model_id == tuned.model_id


async def test_a_cancel_ends_training_within_two_seconds(house: Installation) -> None:
    params = FinetuneParams(user_id="ada", model_name="gpt2-tiny", learning_rate=1e-4)
    async with at_work(make_worker(house, cast(Any, WORKS), queues=(model.finetune.queue,))):
        job_id = await submit(house, model.finetune, params)

        async def keeps() -> Any:
            return await house.reader.checkpoint(job_id)

        await eventually(keeps, within=120)
        (child,) = computing_children(os.getpid())
        before = time.monotonic()
        await house.lifecycle.cancel(job_id)
        await eventually(lambda: not is_alive(child), within=20)
        took_s = time.monotonic() - before
        await becomes(house, job_id, Status.CANCELLED)

    assert took_s <= 2
    assert await house.records.count(MODELS) == 0
