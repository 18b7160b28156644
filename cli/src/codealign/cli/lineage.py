"""A family of records as a tree: seed, prompts, completions, verdicts, decisions, row."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from rich.tree import Tree

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.family import PIPELINE, Family
from codealign.cli.terminal import count, duration, printable

_SHORT = 12
_MAX_PREVIEW = 400
_STAGE_NAMES = {
    pb.KIND_SEED: "seed",
    pb.KIND_CONCEPT_SET: "concepts",
    pb.KIND_INSTRUCTION: "instruction",
    pb.KIND_RESPONSE: "response",
    pb.KIND_VERDICT: "verdict",
    pb.KIND_EXAMPLE: "row",
}


def stage_name(stage: pb.Kind.ValueType) -> str:
    """A stage for a person: "row" for an example, else its name in lower case."""
    known = _STAGE_NAMES.get(stage)
    return known or pb.Kind.Name(stage).removeprefix("STAGE_").lower().replace("_", " ")


def verdict_name(verdict: sandbox.Verdict.ValueType) -> str:
    """A verdict without its prefix: "PASSED"."""
    return sandbox.Verdict.Name(verdict).removeprefix("VERDICT_")


def verdict_text(result: sandbox.Result) -> Text:
    """A result in a line: the verdict, why, and how many assertions were executed."""
    style = "bold green" if result.verdict in (sandbox.VERDICT_PASSED, sandbox.VERDICT_COMPLETED) else "bold red"
    parts = [
        f"{result.assertions_executed} executed, {result.assertions_total} in the tests"
        if result.assertions_total
        else "",
        f"{result.failing_source} line {result.failing_line}" if result.failing_line else "",
    ]
    text = Text(verdict_name(result.verdict), style=style)
    if result.detail:
        text.append(f" {_one_line(result.detail)}", style="default not bold")
    rest = "; ".join(part for part in parts if part)
    return text.append(f" (assertions: {rest})" if parts[0] else f" ({rest})" if rest else "", style="dim not bold")


def lineage_tree(family: Family, *, prompts: bool = False) -> RenderableType:
    """The family as a tree, with the record that was asked for marked.

    Shown in full is what the record comes from and what came of it; of each instruction on that line every sampled
    response. Other branches of the same seed are counted, not shown.

    Args:
        family: The records.
        prompts: Print the few-shot prefixes of prompts too, and everything else in full.
    """
    writer = _Writer(family, prompts)
    trees: list[RenderableType] = [writer.tree(root) for root in family.roots() if writer.shown(root)]
    focus = family.records[family.focus]
    if focus.kind == pb.KIND_SEED and not family.below(focus.id):
        trees.append(Text("no run has come to this seed", "dim"))
    if family.truncated:
        trees.append(Text("more records than are shown here descend from this seed: name a run with --run", "yellow"))
    return Group(*trees)


class _Writer:
    def __init__(self, family: Family, prompts: bool) -> None:
        self._family = family
        self._prompts = prompts
        self._line = family.line()
        self._prompts_shown: set[tuple[str, str]] = set()

    def shown(self, record: pb.Record) -> bool:
        """It lies on the line, below the focus, or beside it among the responses of one instruction."""
        family = self._family
        if record.id in self._line or family.descends(record.id):
            return True
        parent = family.parent(record)
        if not parent:
            return False
        if record.kind in (pb.KIND_DECISION, pb.KIND_REJECTION):
            return parent in self._line or self.shown(family.records[parent])
        above = family.records[parent]
        beside = record.kind == pb.KIND_RESPONSE and parent in self._line
        below_response = above.kind in (pb.KIND_RESPONSE, pb.KIND_VERDICT) and self.shown(above)
        return beside or below_response

    def tree(self, record: pb.Record) -> Tree:
        """A record and what hangs below it."""
        tree = Tree(self._label(record), guide_style="bright_black")
        self._fill(tree, record)
        return tree

    def _fill(self, tree: Tree, record: pb.Record) -> None:
        hidden: dict[str, int] = {}
        children = self._family.below(record.id)
        if record.kind != pb.KIND_RESPONSE:  # of a response the verdict comes first
            children = sorted(children, key=lambda child: child.kind != pb.KIND_DECISION)
        for child in children:
            if not self.shown(child):
                name = stage_name(child.kind)
                hidden[name] = hidden.get(name, 0) + 1
            elif child.kind == pb.KIND_DECISION:
                tree.add(self._decision(child))
            elif child.kind == pb.KIND_VERDICT and not self._family.below(child.id):
                tree.add(self._label(child))
            else:
                self._fill(tree.add(self._label(child)), child)
        for name, number in hidden.items():
            tree.add(Text(f"and {number} more of another line ({name})", style="dim"))

    def _label(self, record: pb.Record) -> RenderableType:
        head = Text()
        name = "rejected " if record.kind == pb.KIND_REJECTION else ""
        made = record.rejection.rejected_kind if record.kind == pb.KIND_REJECTION else record.kind
        head.append(name + stage_name(made), style="bold" if record.kind in PIPELINE else "bold yellow")
        if made == pb.KIND_RESPONSE:
            head.append(f" attempt {record.attempt}")
        head.append(f" {record.id[:_SHORT]}", style="cyan")
        if record.id == self._family.focus:
            head.append("  ◀ asked for", style="bold magenta")
        rows: list[RenderableType] = [head]
        rows += self._body(record)
        rows += self._provenance(record)
        return Group(*rows)

    def _body(self, record: pb.Record) -> list[RenderableType]:
        match record.WhichOneof("body"):
            case "seed":
                seed = record.seed
                text = f"{seed.path}:{seed.line} {seed.name}" + (f" ({seed.license})" if seed.license else "")
                return [Text(printable(text))]
            case "concept_set":
                return [Text(printable(", ".join(record.concept_set.concepts)))]
            case "instruction":
                kind = f"{record.instruction.difficulty} {record.instruction.category}"
                return [Text(printable(kind), style="dim"), self._quote(record.instruction.text)]
            case "response":
                if self._prompts:
                    return [self._quote(record.response.text)]
                return [self._quote(record.response.code)] if record.id in self._line else []
            case "verdict":
                return [verdict_text(record.verdict.result)]
            case "rejection":
                rejection = record.rejection
                line = f"{rejection.reason}: {rejection.detail}" if rejection.detail else rejection.reason
                return [Text(printable(line)), *([self._quote(rejection.text)] if rejection.text else [])]
            case "example":
                return [self._quote(record.example.instruction)] if self._prompts else []
            case "run":
                return [Text(printable(f"{record.run.name} on {record.run.seeds.collection}"))]
            case "stage_config":
                return [Text(printable(f"{record.stage_config.name} {record.stage_config.settings_json}"))]
        return []

    def _quote(self, text: str, *, whole: bool = False) -> RenderableType:
        clean = printable(text).strip("\n")
        if not whole and not self._prompts and len(clean) > _MAX_PREVIEW:
            clean = clean[:_MAX_PREVIEW].rstrip() + f" … ({len(text):,} characters in all)"
        quoted = Text("\n".join(f"│ {line}" for line in clean.split("\n")))
        return Padding(quoted, (0, 0, 0, 1), expand=False)

    def _provenance(self, record: pb.Record) -> list[RenderableType]:
        origin = record.provenance
        if not origin.model and not origin.prompt_suffix:
            return []
        cached = f", {origin.cached_prompt_tokens:,} of them cached" if origin.cached_prompt_tokens else ""
        facts = [
            f"{origin.model}@{origin.model_revision[:_SHORT]}" if origin.model_revision else origin.model,
            f"engine {origin.engine}" if origin.engine else "",
            f"seed {origin.seed}" if origin.seed else "",
            self._sampling(record),
            f"{origin.prompt_tokens:,} prompt tokens{cached}, {origin.generated_tokens:,} generated",
            f"ended by {origin.finish_reason}" if origin.finish_reason else "",
            duration(origin.seconds) if origin.seconds else "",
        ]
        rows: list[RenderableType] = [Text(printable(", ".join(fact for fact in facts if fact)), style="dim")]
        rows += self._prompt(origin)
        return rows

    def _sampling(self, record: pb.Record) -> str:
        config = self._family.references.get(record.stage_config_id)
        return f"configuration {config.stage_config.name} {config.id[:_SHORT]}" if config else ""

    def _prompt(self, origin: pb.Provenance) -> list[RenderableType]:
        rows: list[RenderableType] = []
        prompt = (origin.prompt_prefix_id, origin.prompt_suffix)
        if prompt in self._prompts_shown:
            return [Text("prompt: as above", style="dim")]
        self._prompts_shown.add(prompt)
        if origin.prompt_prefix_id:
            prefix = self._family.references.get(origin.prompt_prefix_id)
            length = f", {count(len(prefix.prompt_prefix.text), 'character')}" if prefix else ""
            rows.append(Text(f"prompt: examples {origin.prompt_prefix_id[:_SHORT]}{length}, then", style="dim"))
            if prefix and self._prompts:
                rows.append(self._quote(prefix.prompt_prefix.text))
        elif origin.prompt_suffix:
            rows.append(Text("prompt:", style="dim"))
        if origin.prompt_suffix:
            rows.append(self._quote(origin.prompt_suffix, whole=True))
        return rows

    def _decision(self, record: pb.Record) -> Text:
        decision = record.decision
        kept = decision.outcome == pb.Decision.OUTCOME_KEPT
        text = Text("kept" if kept else "dropped", style="green" if kept else "red")
        text.append(f" by {printable(decision.rule)}", style="default")
        if decision.detail:
            text.append(f": {_one_line(decision.detail)}", style="default")
        if decision.duplicate_of:
            text.append(f" (duplicate of {decision.duplicate_of[:_SHORT]})", style="default")
        return text.append(f" {record.id[:_SHORT]}", style="dim")


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())
