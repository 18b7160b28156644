"""Near duplicates: precision, recall, time and memory of each strategy, against the exact Jaccard similarity.

    .venv/bin/python -m tests.bench.duplicates FOLDER [--texts 3200] [--threshold 0.7]

FOLDER holds JSON lines, plain or gzipped, as HumanEval, MBPP and EvalPlus publish their solutions; functions of the
standard library fill up. A third of the texts are changed copies of others: some words replaced, one in thirty at most.
The same folder and numbers give the same table, time aside. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from codealign.cli.seeds import read
from codealign.coordinator.rules.duplicates import Row, RowDuplicates
from codealign.coordinator.rules.near import STRATEGIES, NearDuplicates, bands_for, shingles
from codealign.coordinator.rules.source import bare_source

COPIES = 1 / 3
Pairs = set[tuple[int, int]]


def solutions(folder: Path) -> Iterator[str]:
    """Return prompt and solution of each task."""
    for path in sorted(folder.glob("*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for line in file:
                row = json.loads(line)
                yield bare_source(f"{row.get('prompt', '')}\n{row.get('canonical_solution', row.get('code', ''))}")


def corpus(folder: Path, count: int) -> list[str]:
    """Return texts and modified copies, in a fixed random order."""
    chance = random.Random(0)
    originals = [*solutions(folder), *(seed.code for seed in read("stdlib").seeds)]
    chance.shuffle(originals)
    texts = originals[: round(count * (1 - COPIES))]
    while len(texts) < count:
        words = chance.choice(originals).split(" ")
        for _ in range(chance.randint(1, max(1, len(words) // 30))):
            words[chance.randrange(len(words))] = f"w{chance.randrange(1000)}"
        texts.append(" ".join(words))
    chance.shuffle(texts)
    return texts


def exact(texts: Sequence[str], threshold: float) -> Pairs:
    """Return the pairs whose Jaccard similarity reaches the threshold."""
    sets = [shingles(text) for text in texts]
    holders: dict[str, list[int]] = defaultdict(list)
    pairs: Pairs = set()
    for number, own in enumerate(sets):
        common: dict[int, int] = defaultdict(int)
        for shingle in own:
            for other in holders[shingle]:
                common[other] += 1
            holders[shingle].append(number)
        pairs |= {(o, number) for o, n in common.items() if n >= threshold * (len(own) + len(sets[o]) - n)}
    return pairs


def kept_by(strategy: str, texts: Sequence[str], threshold: float) -> tuple[set[int], float, float]:
    """Return the kept texts, CPU seconds per 1,000 texts, and kilobytes per kept text."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    near = NearDuplicates(threshold, strategy)
    kept = _keep(near, texts)
    memory = (tracemalloc.get_traced_memory()[0] - before) / 1000
    tracemalloc.stop()
    start = time.process_time()
    _keep(NearDuplicates(threshold, strategy), texts)
    return kept, (time.process_time() - start) / len(texts) * 1000, memory / max(1, len(kept))


def _keep(near: NearDuplicates, texts: Sequence[str]) -> set[int]:
    kept = set()
    for number, text in enumerate(texts):
        if found := near.find(text):
            near.drop(found[0], text)
        else:
            near.add(str(number), text)
            kept.add(number)
    return kept


def should_fall(pairs: Pairs, count: int) -> set[int]:
    """Return the texts to drop if each text is compared exactly with those kept before it."""
    earlier: dict[int, list[int]] = defaultdict(list)
    for one, other in pairs:
        earlier[other].append(one)
    fallen: set[int] = set()
    for number in range(count):
        if any(one not in fallen for one in earlier[number]):
            fallen.add(number)
    return fallen


def rows(texts: Sequence[str]) -> tuple[float, float]:
    """Return CPU seconds per 1,000 complete rows, and kilobytes per kept row."""
    offered = [
        Row(str(number), f"Write this: {text}", f"Here it is.\n{text}", text) for number, text in enumerate(texts)
    ]
    tracemalloc.start()
    duplicates = RowDuplicates(0.7)
    before = tracemalloc.get_traced_memory()[0]
    kept = sum(duplicates.offer(row) is None for row in offered)
    memory = (tracemalloc.get_traced_memory()[0] - before) / 1000 / max(1, kept)
    tracemalloc.stop()
    start, duplicates = time.process_time(), RowDuplicates(0.7)
    for row in offered:
        duplicates.offer(row)
    return (time.process_time() - start) / len(texts) * 1000, memory


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=3200)
    parser.add_argument("--threshold", type=float, default=0.7)
    given = parser.parse_args()
    texts = corpus(given.folder, given.texts)
    pairs = exact(texts, given.threshold)
    right = should_fall(pairs, len(texts))
    print(f"{len(texts)} texts, {len(pairs)} pairs of similarity {given.threshold:g} or more, {len(right)} should fall")
    print("| strategy | bands x rows | kept | precision | recall | s per 1,000 | kB per kept text |")
    print("|---|---|---|---|---|---|---|")
    for strategy in STRATEGIES:
        kept, seconds, memory = kept_by(strategy, texts, given.threshold)
        fallen = set(range(len(texts))) - kept
        precision, recall = len(fallen & right) / max(1, len(fallen)), len(fallen & right) / max(1, len(right))
        bands = " x ".join(map(str, bands_for(given.threshold, strategy)))
        print(f"| {strategy} | {bands} | {len(kept)} | {precision:.1%} | {recall:.1%} | {seconds:.2f} | {memory:.2f} |")
    seconds, memory = rows(texts)
    print(f"whole rows: {seconds:.2f} s of processor time for 1,000, {memory:.1f} kB for each that is kept")


if __name__ == "__main__":
    main()
