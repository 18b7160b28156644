"""Print the records around a record as a tree: seed, prompts, completions, verdicts, decisions, row."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from rich.tree import Tree

from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.api.sandbox.v1 import sandbox_pb2 as sandbox
from codealign.cli.enums import value_name
from codealign.cli.family import BESIDE, Family
from codealign.cli.judgement_view import judgement_view
from codealign.cli.origins import Origin
from codealign.cli.terminal import count, duration, printable

_SHORT = 12
_MAX_PREVIEW = 400


def kind_name(kind: pb.Kind.ValueType) -> str:
    """Return a record kind for display, e.g. "concept set", or "row" for an example."""
    if kind == pb.KIND_EXAMPLE:
        return "row"
    if kind not in pb.Kind.values():
        return f"record of kind {kind}"
    return value_name(pb.Kind.DESCRIPTOR, kind).lower().replace("_", " ")


def seed_place(seed: pb.Seed) -> str:
    """Return where a seed comes from: "file.py:12", or the file alone if the line is unknown, as for imported rows."""
    return f"{seed.path}:{seed.line}" if seed.line else seed.path


def verdict_name(verdict: sandbox.Verdict.ValueType) -> str:
    """Return a verdict without its prefix: "PASSED"."""
    return value_name(sandbox.Verdict.DESCRIPTOR, verdict)


def verdict_text(result: sandbox.Result) -> Text:
    """Return a result in one line: verdict, reason, and number of executed assertions."""
    style = "bold green" if result.verdict in (sandbox.VERDICT_PASSED, sandbox.VERDICT_COMPLETED) else "bold red"
    parts = [
        f"{result.assertions_executed} executed, {result.assertions_total} in the tests"
        if result.assertions_total
        else "",
        _one_line(f"{result.failing_source} line {result.failing_line}") if result.failing_line else "",
    ]
    text = Text(verdict_name(result.verdict), style=style)
    if result.detail:
        text.append(f" {_one_line(result.detail)}", style="default not bold")
    rest = "; ".join(part for part in parts if part)
    return text.append(f" (assertions: {rest})" if parts[0] else f" ({rest})" if rest else "", style="dim not bold")


def lineage_tree(
    family: Family, *, prompts: bool = False, origins: Mapping[str, Origin] | None = None
) -> RenderableType:
    """Return the records as a tree, with the requested record marked.

    The tree shows the record's ancestors and descendants, and all candidates that were executed or chosen from. Other
    branches of the same seed are counted, not shown.

    Args:
        family: The records.
        prompts: Print everything in full, including few-shot prefixes and raw completions.
        origins: Origins of the models that were tuned here, by revision.
    """
    writer = _Writer(family, prompts, origins or {})
    trees: list[RenderableType] = [writer.tree(root) for root in family.roots() if writer.shown(root)]
    focus = family.records[family.focus]
    if focus.kind == pb.KIND_SEED and not family.below(focus.id):
        trees.append(Text("no run has used this seed", "dim"))
    trees += _chain(origins or {})
    if family.truncated:
        trees.append(Text("this seed has more descendants than are shown: select a run with --run", "yellow"))
    return Group(*trees)


def tuned_on(origin: Origin) -> str:
    """Return what a model was tuned on: "tuned on v-1 in round 2 (run 0123456789ab)"."""
    run = f"run {origin.run.id[:_SHORT]}" if origin.run is not None else "by a run that is not in this store"
    return f"tuned on {origin.version} in round {origin.number} ({run})"


def _chain(origins: Mapping[str, Origin]) -> list[RenderableType]:
    """Return the tuned models behind the records, the last round's first."""
    lines = [
        f"  {revision[:_SHORT]}: {tuned_on(origin)}, checkpoint {origin.checkpoint.id[:_SHORT]}, from base model "
        f"{origin.checkpoint.checkpoint.base_revision[:_SHORT]}"
        for revision, origin in sorted(origins.items(), key=lambda item: (-item[1].number, item[0]))
    ]
    return [Text("\n".join(printable(line) for line in ["models that were tuned here:", *lines]))] if lines else []


class _Writer:
    def __init__(self, family: Family, prompts: bool, origins: Mapping[str, Origin]) -> None:
        self._family = family
        self._prompts = prompts
        self._origins = origins
        self._line = family.line()
        self._prompts_shown: set[tuple[str, str]] = set()
        judged = [record for record in family.records.values() if record.kind in (pb.KIND_VERDICT, pb.KIND_EXAMPLE)]
        parents = [family.records[parent] for record in judged for parent in record.parents if parent in family.records]
        self._candidates = {record.kind for record in parents if record.kind not in BESIDE} or {pb.KIND_RESPONSE}

    def shown(self, record: pb.Record) -> bool:
        """Return whether the record is an ancestor, a descendant, or a candidate beside the focus."""
        family = self._family
        if record.id in self._line or family.descends(record.id):
            return True
        parent = family.parent(record)
        if not parent:
            return False
        if record.kind in (pb.KIND_DECISION, pb.KIND_REJECTION):
            return parent in self._line or self.shown(family.records[parent])
        above = family.records[parent]
        beside = record.kind in self._candidates and parent in self._line
        return beside or (above.kind in (*self._candidates, pb.KIND_VERDICT) and self.shown(above))

    def tree(self, record: pb.Record) -> Tree:
        """Return a record and its children."""
        tree = Tree(self._label(record), guide_style="bright_black")
        self._fill(tree, record)
        return tree

    def _fill(self, tree: Tree, record: pb.Record) -> None:
        hidden: dict[str, int] = {}
        children = self._family.below(record.id)
        if record.kind not in self._candidates:  # for candidates, the verdict comes first
            children = sorted(children, key=lambda child: child.kind != pb.KIND_DECISION)
        for child in children:
            if not self.shown(child):
                name = kind_name(child.kind)
                hidden[name] = hidden.get(name, 0) + 1
            elif child.kind == pb.KIND_DECISION:
                tree.add(self._decision(child))
            elif child.kind == pb.KIND_VERDICT and not self._family.below(child.id):
                tree.add(self._label(child))
            else:
                self._fill(tree.add(self._label(child)), child)
        for name, number in hidden.items():
            tree.add(Text(f"and {number} more outside this lineage ({name})", style="dim"))

    def _label(self, record: pb.Record) -> RenderableType:
        head = Text()
        name = "rejected " if record.kind == pb.KIND_REJECTION else ""
        made = record.rejection.rejected_kind if record.kind == pb.KIND_REJECTION else record.kind
        head.append(name + kind_name(made), style="bold yellow" if record.kind == pb.KIND_REJECTION else "bold")
        if made in self._candidates or record.attempt:
            head.append(f" attempt {record.attempt}")
        if record.key and self._family.completion(record) is not None:
            head.append(f" number {printable(record.key)} of its completion")
        head.append(f" {record.id[:_SHORT]}", style="cyan")
        if record.id == self._family.focus:
            head.append("  ◀ requested", style="bold magenta")
        rows: list[RenderableType] = [head]
        rows += self._body(record)
        rows += self._provenance(record)
        rows += self._imported(record)
        return Group(*rows)

    def _body(self, record: pb.Record) -> list[RenderableType]:
        match record.WhichOneof("body"):
            case "seed":
                seed = record.seed
                text = f"{seed_place(seed)} {seed.name}".rstrip() + (f" ({seed.license})" if seed.license else "")
                return [Text(printable(text))]
            case "concept_set":
                return [Text(printable(", ".join(record.concept_set.concepts)))]
            case "instruction":
                kind = f"{record.instruction.difficulty} {record.instruction.category}".strip()
                shown: list[RenderableType] = [Text(printable(kind), style="dim")] if kind else []
                return [*shown, self._quote(record.instruction.text)]
            case "response":
                texts = [text for text in (record.response.instruction, record.response.code) if text]
                return [self._quote(text) for text in texts] if record.id in self._line or self._prompts else []
            case "completion":
                return [self._quote(record.completion.text)]
            case "verdict":
                return [verdict_text(record.verdict.result)]
            case "trial":
                return [Text(self._trial(record)), verdict_text(record.trial.result)]
            case "judgement":
                return list(judgement_view(record, self._family.records.values()))
            case "rejection":
                rejection = record.rejection
                line = f"{rejection.reason}: {rejection.detail}" if rejection.detail else rejection.reason
                rows: list[RenderableType] = [Text(printable(line))]
                if rejection.evidence:
                    rows.append(self._quote(rejection.evidence))
                completion = self._family.completion(record)
                if completion is not None and completion.completion.text and not self._prompts:
                    rows.append(self._quote(completion.completion.text))
                return rows
            case "example":
                return [self._quote(record.example.instruction)] if self._prompts else []
            case "prompt_prefix":
                return [self._quote(record.prompt_prefix.text)]
            case None:
                return [Text("this client does not know the record's kind: update codealign-cli", style="yellow")]
            case "run_request":
                return [self._state(record.run_request.wanted, record.run_request.reason)]
            case "run_event":
                return [self._state(record.run_event.state, record.run_event.message)]
            case "run":
                return [Text(printable(f"{record.run.name} on {record.run.seeds.collection}"))]
            case "stage_config":
                return [Text(printable(f"{record.stage_config.name} {record.stage_config.settings_json}"))]
        return []

    def _trial(self, record: pb.Record) -> str:
        if len(record.parents) < 2:
            return "called with inputs:"
        other = self._family.records.get(record.parents[1])
        name = f"attempt {other.attempt}, " if other is not None else ""
        return f"with the tests of {name}{record.parents[1][:_SHORT]}:"

    def _state(self, state: pb.RunState.ValueType, why: str) -> RenderableType:
        name = value_name(pb.RunState.DESCRIPTOR, state).lower()
        return Text(_one_line(f"{name}: {why}" if why else name))

    def _quote(self, text: str, *, whole: bool = False) -> RenderableType:
        clean = printable(text).strip("\n")
        if not whole and not self._prompts and len(clean) > _MAX_PREVIEW:
            clean = clean[:_MAX_PREVIEW].rstrip() + f" … ({len(text):,} characters in total)"
        quoted = Text("\n".join(f"│ {line}" for line in clean.split("\n")))
        return Padding(quoted, (0, 0, 0, 1), expand=False)

    def _provenance(self, record: pb.Record) -> list[RenderableType]:
        origin, family = record.provenance, self._family
        completion = record if record.kind == pb.KIND_COMPLETION else family.completion(record)
        if completion is None and not origin.model:
            return []
        written = completion.completion if completion is not None else pb.Completion()
        if completion is not None and not origin.model:
            origin = completion.provenance
        cached = f", {origin.cached_prompt_tokens:,} of them cached" if origin.cached_prompt_tokens else ""
        cached = ", how many of them cached is unknown" if origin.cached_prompt_tokens_unknown else cached
        tokens = f"{origin.prompt_tokens:,} prompt tokens{cached}, {origin.generated_tokens:,} generated"
        config = family.references.get(record.stage_config_id)
        facts = [
            f"{origin.model}@{origin.model_revision[:_SHORT]}" if origin.model_revision else origin.model,
            f"engine {origin.engine}" if origin.engine else "",
            f"seed {origin.seed}" if origin.seed else "",
            f"configuration {config.stage_config.name} {config.id[:_SHORT]}" if config is not None else "",
            tokens if origin.prompt_tokens or origin.generated_tokens else "",
            f"ended by {written.finish_reason}" + (f" {written.stop_string!r}" if written.stop_string else "")
            if written.finish_reason
            else "",
            written.detail,
            duration(origin.seconds) if origin.seconds else "",
        ]
        rows: list[RenderableType] = [Text(_one_line(", ".join(fact for fact in facts if fact)), style="dim")]
        if tuned := self._origins.get(origin.model_revision):
            rows.append(Text(_one_line(f"written by the model {tuned_on(tuned)}")))
        if completion is not None:
            rows += self._prompt(completion)
            if self._prompts and completion is not record:
                rows.append(Text(f"completion {completion.id[:_SHORT]}:", style="dim"))
                rows.append(self._quote(written.text))
        return rows

    def _imported(self, record: pb.Record) -> list[RenderableType]:
        import_id = record.response.imported_from or record.provenance.import_id
        if not import_id:
            return []
        source = self._family.references.get(import_id)
        name = source.import_source.name if source is not None else "an import"
        license_id = record.response.license or record.instruction.license
        said = f"imported from {name} ({import_id[:_SHORT]})" + (f", licence {license_id}" if license_id else "")
        return [Text(_one_line(said), style="dim")]

    def _prompt(self, completion: pb.Record) -> list[RenderableType]:
        rows: list[RenderableType] = []
        prefix, suffix = self._family.prefix(completion), completion.completion.prompt_suffix
        prompt = (completion.parents[0] if completion.parents else "", suffix)
        if prompt in self._prompts_shown:
            return [Text("prompt: as above", style="dim")]
        self._prompts_shown.add(prompt)
        if prompt[0]:
            length = f", {count(len(prefix.prompt_prefix.text), 'character')}" if prefix else ""
            rows.append(Text(f"prompt: examples {prompt[0][:_SHORT]}{length}, then", style="dim"))
            if prefix and self._prompts:
                rows.append(self._quote(prefix.prompt_prefix.text))
        elif suffix:
            rows.append(Text("prompt:", style="dim"))
        if suffix:
            rows.append(self._quote(suffix, whole=True))
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
        # Other parents than the subject: the run that the decision belongs to, and a duplicate's original.
        for run in (parent for parent in record.parents[1:] if parent != decision.duplicate_of):
            text.append(f" in run {run[:_SHORT]}", style="dim")
        return text.append(f" {record.id[:_SHORT]}", style="dim")


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())
