"""Texts to vectors for a job: in short turns beside the event loop, and never the same fact check twice.

The vectors of fact checks are kept in one file of ``DATA_DIR``, by the hash of their texts. It may vanish at any
time and costs a few minutes then. Several workers may share it: each writes the whole file under another name
and renames it, so that a reader finds the one or the other; what the slower one had not seen is embedded again.
"""

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np

from app.log import get_log
from workers.context import Context
from workers.families.edm.minilm import WEIGHTS_SHA256, WIDTH, Vectors, the_model
from workers.families.edm.words import spoken

TURN = 32  # texts at once: some tenths of a second, after which a cancel or a limit is heard
SAVE_EVERY = 2_048  # texts, so that a job that is stopped has not embedded in vain

log = get_log()


def embed(texts: Sequence[str]) -> Vectors:
    """Return a vector for each text. For a thread."""
    return the_model().encode([spoken(text) for text in texts])


async def embed_all(ctx: Context, texts: Sequence[str]) -> Vectors:
    """Return a vector for each text, in turns, each text once however often it comes."""
    different = sorted(set(texts), key=_size)
    turns = [different[start : start + TURN] for start in range(0, len(different), TURN)]
    vectors = [await ctx.run_thread(embed, turn) for turn in turns]
    place = {text: at for at, text in enumerate(different)}
    return np.concatenate([np.empty((0, WIDTH), np.float32), *vectors])[[place[text] for text in texts]]


async def embed_known(ctx: Context, texts: Sequence[str], *, percent: tuple[float, float]) -> Vectors:
    """Return a vector for each text, from the file where it has it; then the file holds these and no others."""
    store = Store(ctx.installation.settings.data_dir)
    known = await ctx.run_thread(store.read)
    keys = [key_of(text) for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    begins, ends = percent
    todo = sorted(missing, key=lambda key: _size(missing[key]))
    for start in range(0, len(todo), TURN):
        turn = todo[start : start + TURN]
        known.update(zip(turn, await ctx.run_thread(embed, [missing[key] for key in turn]), strict=True))
        done = start + len(turn)
        if done % SAVE_EVERY == 0:
            await ctx.run_thread(store.write, known)
        await ctx.progress(
            begins + (ends - begins) * done / len(todo),
            f"embedded {done} of {len(todo)} new fact checks",
            stage="embed",
        )
    wanted = {key: known[key] for key in keys}
    if todo or len(wanted) != len(known):
        await ctx.run_thread(store.write, wanted)
    return np.array(list(map(wanted.__getitem__, keys)), np.float32).reshape(-1, WIDTH)


def _size(text: str) -> tuple[int, str]:
    """Return by what texts are put together: those of like length, since a batch is padded to its longest one."""
    return len(text), text


def key_of(text: str) -> str:
    """Return by what the vector of a text is found: the hash of what the model is given."""
    return sha256(spoken(text).encode()).hexdigest()


class Store:
    """The file of the vectors of one model."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "embeddings" / f"minilm-{WEIGHTS_SHA256[:12]}.safetensors"

    def read(self) -> dict[str, Vectors]:
        """Return the vectors by key; none where there is no file, or none that can be read."""
        from safetensors import SafetensorError  # noqa: PLC0415  # an extra
        from safetensors.numpy import load_file  # noqa: PLC0415

        try:
            found = load_file(self.path)
            keys = json.loads(found["keys"].tobytes())
            vectors = found["vectors"]
        except FileNotFoundError:
            return {}
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("embeddings_not_read", path=str(self.path), reason=str(error))
            return {}
        if vectors.shape != (len(keys), WIDTH) or vectors.dtype != np.float32:
            log.warning("embeddings_not_read", path=str(self.path), reason="its shape is not that of its keys")
            return {}
        return dict(zip(keys, vectors, strict=True))

    def write(self, vectors: dict[str, Vectors]) -> None:
        """Replace the file, all or not at all. A disk that will not take it costs the saving alone."""
        from safetensors.numpy import save  # noqa: PLC0415  # an extra

        keys = np.frombuffer(json.dumps(list(vectors)).encode(), np.uint8)
        content = save({"keys": keys, "vectors": np.array(list(vectors.values()), np.float32).reshape(-1, WIDTH)})
        unfinished = self.path.with_name(f"{self.path.name}.{uuid4().hex}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        except OSError as error:
            log.warning("embeddings_not_saved", path=str(self.path), reason=str(error))
        finally:
            unfinished.unlink(missing_ok=True)
