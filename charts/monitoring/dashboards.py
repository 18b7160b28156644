"""Grafana dashboards, generated so that all panels look alike.

    python -m charts.monitoring.dashboards      # part of `make monitoring`

Every panel is a row of a table below: a title, a description, a unit and its queries. In a query, `{ns` stands for the
selector of the namespace that the dashboard's variable chooses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

FOLDER = Path(__file__).parents[1] / "codealign/files/dashboards"
PAGE = Path(__file__).parents[2] / "docs/monitoring.md"
_BEGIN, _END = "<!-- panels: begin -->", "<!-- panels: end -->"
SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
_WIDTH, _HEIGHT = 8, 8
"""Size of a panel; the grid has 24 columns."""
_RATE = "[$__rate_interval]"
_DATA = {"": "nano", "cluster": "cluster", "vllm": "vLLM", "workers": "workers"}

Where = Literal["", "cluster", "vllm", "workers"]


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    description: str
    unit: str
    """Grafana's name of the unit."""
    queries: Mapping[str, str]
    """Queries by their legend."""
    stacked: bool = False
    where: Where = ""
    """Where there is data: everywhere, only in a cluster, only with vLLM as the engine or its endpoint, or only with
    inference workers."""

    def expressions(self) -> Iterator[str]:
        """Yield the queries with the namespace's selector."""
        return (query.replace("{ns", '{namespace=~"$namespace"') for query in self.queries.values())


def quantiles(histogram: str, by: str = "") -> dict[str, str]:
    """Return the queries for the median and the 95th percentile of a histogram."""
    labels, legend = (f", {by}", f" {{{{{by}}}}}") if by else ("", "")
    rate = f"sum by (le{labels}) (rate({histogram}_bucket{{ns}}{_RATE}))"
    return {f"p{q}{legend}": f"histogram_quantile(0.{q}, {rate})" for q in (50, 95)}


def mean(histogram: str) -> str:
    """Return the query for the mean of a histogram."""
    return f"sum(rate({histogram}_sum{{ns}}{_RATE})) / sum(rate({histogram}_count{{ns}}{_RATE}))"


C, I, S, D, T, O = (  # noqa: E741 - prefixes in queries
    f"codealign_{name}_" for name in ("coordinator", "inference", "sandbox", "dataset", "trainer", "operator")
)
# "prompt" are tokens of which it is unknown whether they were computed.
COMPUTED = 'kind=~"computed_prompt|prompt|generated"'

RUNS = (
    Panel(
        "Held work",
        "Runs, evaluations, loops, series and experiments that the coordinator works on, waits with, or stops.",
        "short",
        {"{{workload}} {{state}}": f"sum by (workload, state) ({C}workloads{{ns}})"},
        stacked=True,
    ),
    Panel(
        "Ended work",
        "Runs, evaluations, loops, series and experiments that ended in the shown time, by how they ended.",
        "short",
        {"{{workload}} {{state}}": f"sum by (workload, state) (increase({C}workload_ends_total{{ns}}[$__range]))"},
    ),
    Panel(
        "Rows",
        "Rows that selection kept in the shown time.",
        "short",
        {"rows": f"sum(increase({C}rows_total{{ns}}[$__range]))"},
    ),
    Panel(
        "Items",
        "Items that each stage finishes, kept or dropped.",
        "ops",
        {"{{stage}}": f"sum by (stage) (rate({C}items_total{{ns}}{_RATE}))"},
    ),
    Panel(
        "Kept share",
        "Share of finished items that a stage keeps.",
        "percentunit",
        {
            "{{stage}}": f"1 - sum by (stage) (rate({C}dropped_items_total{{ns}}{_RATE}))"
            f" / (sum by (stage) (rate({C}items_total{{ns}}{_RATE})) > 0)"
        },
    ),
    Panel(
        "Drops by reason",
        "The ten most frequent reasons for which items are dropped.",
        "ops",
        {"{{stage}}: {{reason}}": f"topk(10, sum by (stage, reason) (rate({C}dropped_items_total{{ns}}{_RATE})) > 0)"},
        stacked=True,
    ),
    Panel(
        "In flight by stage",
        "Items at inference, the sandbox or selection.",
        "short",
        {"{{stage}}": f"sum by (stage) ({C}items_in_flight{{ns}})"},
        stacked=True,
    ),
    Panel(
        "Windows",
        "Samples at inference and programs at the sandbox: how many may be in flight, and how many are.",
        "short",
        {
            "{{service}} limit": f"sum by (service) ({C}window_limit{{ns}})",
            "{{service}} in use": f"sum by (service) ({C}window_in_use{{ns}})",
        },
    ),
    Panel(
        "Busy stages",
        "Share of time in which a stage has items in flight.",
        "percentunit",
        {"{{stage}}": f"sum by (stage) (rate({C}busy_seconds_total{{ns}}{_RATE}))"},
    ),
    Panel(
        "Tokens by stage",
        "Tokens computed (not from the prefix cache, or unknown: kind prompt) and generated, by the stage that asked.",
        "short",
        {"{{stage}} {{kind}}": f"sum by (stage, kind) (rate({C}tokens_total{{ns, {COMPUTED}}}{_RATE}))"},
        stacked=True,
    ),
    Panel(
        "Tokens by model",
        "Tokens computed (not from the prefix cache, or unknown) and generated, by model.",
        "short",
        {"{{model}}": f"sum by (model) (rate({C}tokens_total{{ns, {COMPUTED}}}{_RATE}))"},
        stacked=True,
    ),
    Panel(
        "Tokens per kept row",
        "Tokens computed (or unknown) and generated in the shown time for each row that selection kept.",
        "short",
        {
            "tokens": f"sum(increase({C}tokens_total{{ns, {COMPUTED}}}[$__range]))"
            f" / sum(increase({C}rows_total{{ns}}[$__range]))"
        },
    ),
    Panel(
        "Seconds per kept row",
        "Busy time of each stage in the shown time for each row that selection kept.",
        "s",
        {
            "{{stage}}": f"sum by (stage) (increase({C}busy_seconds_total{{ns}}[$__range]))"
            f" / scalar(sum(increase({C}rows_total{{ns}}[$__range])))"
        },
        stacked=True,
    ),
    Panel(
        "Retries",
        "Calls repeated after a fault of inference or the sandbox.",
        "ops",
        {"{{stage}}": f"sum by (stage) (rate({C}retries_total{{ns}}{_RATE}))"},
    ),
    Panel(
        "Breaker and leases",
        "Runs paused by the breaker, and leases that could not be renewed, were regained or lost, in the shown time.",
        "short",
        {
            "breaker": f"sum(increase({C}breaker_openings_total{{ns}}[$__range]))",
            "lease {{event}}": f'sum by (event) (increase({C}lease_events_total{{ns, event=~"failed|regained|lost"}}'
            "[$__range]))",
        },
    ),
)

INFERENCE = (
    Panel(
        "Samples",
        "Samples being decoded, samples waiting for a slot, and slots.",
        "short",
        {
            name: f"sum({I}{metric}{{ns}})"
            for name, metric in (("running", "running_samples"), ("waiting", "waiting_samples"), ("slots", "slots"))
        },
    ),
    Panel(
        "Occupied slots",
        "Share of the slots that decode a sample.",
        "percentunit",
        {"occupied": f"sum({I}running_samples{{ns}}) / sum({I}slots{{ns}})"},
    ),
    Panel(
        "Rows per decoding step",
        "Mean batch size of a decoding step (engine transformers).",
        "short",
        {"rows": mean(f"{I}batch_rows")},
    ),
    Panel(
        "Tokens",
        "Prompt tokens computed, taken from the prefix cache, and unknown which of both (prompt); generated tokens.",
        "short",
        {"{{kind}}": f"sum by (kind) (rate({I}tokens_total{{ns}}{_RATE}))"},
        stacked=True,
    ),
    Panel(
        "Prefix-cache hits",
        "Share of prompt tokens that were not computed, among those of which the engine says it.",
        "percentunit",
        {
            "hits": f'sum(rate({I}tokens_total{{ns, kind="cached_prompt"}}{_RATE}))'
            f' / sum(rate({I}tokens_total{{ns, kind=~".*_prompt"}}{_RATE}))'
        },
    ),
    Panel(
        "Completions",
        "Finished completions, by why they ended.",
        "ops",
        {"{{finish_reason}}": f"sum by (finish_reason) (rate({I}completions_total{{ns}}{_RATE}))"},
        stacked=True,
    ),
    Panel(
        "Queue time",
        "Time from a request's arrival until its prompt is computed.",
        "s",
        quantiles(f"{I}queue_seconds"),
    ),
    Panel(
        "Time to first token",
        "Time from a request's arrival to a completion's first token.",
        "s",
        quantiles(f"{I}time_to_first_token_seconds"),
    ),
    Panel(
        "Completion time",
        "Time from a request's arrival to a completion's last token.",
        "s",
        quantiles(f"{I}completion_seconds"),
    ),
    Panel(
        "Workers",
        "Workers that serve a model, that load one, that cannot have one, that do not respond, and that are set aside "
        "after a fault.",
        "short",
        {"{{state}}": f"sum by (state) ({I}gateway_workers{{ns}})"},
        stacked=True,
        where="workers",
    ),
    Panel(
        "Gateway: waiting samples",
        "Samples in the gateway's queue that wait for a worker, and the most that it takes.",
        "short",
        {
            "{{model}}": f"sum by (model) ({I}gateway_waiting_samples{{ns}})",
            "limit": f"sum({I}gateway_queue_limit{{ns}})",
        },
        where="workers",
    ),
    Panel(
        "Gateway: queue age",
        "How long the oldest waiting sample has waited.",
        "s",
        {
            "{{model}}": f"max by (model) ((time() - {I}gateway_oldest_waiting_timestamp_seconds{{ns}})"
            f" * ({I}gateway_oldest_waiting_timestamp_seconds{{ns}} > bool 0))"
        },
        where="workers",
    ),
    Panel(
        "Gateway: samples at workers",
        "Samples that each worker has been sent and has not answered.",
        "short",
        {"{{worker}}": f"sum by (worker) ({I}gateway_in_flight_samples{{ns}})"},
        stacked=True,
        where="workers",
    ),
    Panel(
        "Gateway: sent again and elsewhere",
        "Samples sent again, samples sent to another worker than their prefix group's own, and refused requests.",
        "ops",
        {
            "again: {{reason}}": f"sum by (reason) (rate({I}gateway_resent_samples_total{{ns}}{_RATE}))",
            "elsewhere": f"sum(rate({I}gateway_spilled_samples_total{{ns}}{_RATE}))",
            "refused": f"sum(rate({I}gateway_refused_requests_total{{ns}}{_RATE}))",
        },
        where="workers",
    ),
    Panel(
        "vLLM: requests",
        "Requests that vLLM's scheduler runs and holds back.",
        "short",
        {
            "running": "sum(vllm:num_requests_running{ns})",
            "waiting": "sum(vllm:num_requests_waiting{ns})",
        },
        where="vllm",
    ),
    Panel(
        "vLLM: KV cache",
        "Share of the KV cache's blocks in use.",
        "percentunit",
        {"{{model_name}}": "max by (model_name) (vllm:kv_cache_usage_perc{ns})"},
        where="vllm",
    ),
    Panel(
        "vLLM: prefix cache and preemptions",
        "Share of queried tokens found in vLLM's prefix cache, and preempted requests per second.",
        "short",
        {
            "hit share": f"sum(rate(vllm:prefix_cache_hits_total{{ns}}{_RATE}))"
            f" / sum(rate(vllm:prefix_cache_queries_total{{ns}}{_RATE}))",
            "preemptions": f"sum(rate(vllm:num_preemptions_total{{ns}}{_RATE}))",
        },
        where="vllm",
    ),
)

SANDBOX = (
    Panel(
        "Results",
        "Programs executed, by verdict.",
        "ops",
        {"{{verdict}}": f"sum by (verdict) (rate({S}results_total{{ns}}{_RATE}))"},
        stacked=True,
    ),
    Panel(
        "Passing share",
        "Share of executed programs that pass, by profile.",
        "percentunit",
        {
            "{{profile}}": f'sum by (profile) (rate({S}results_total{{ns, verdict="PASSED"}}{_RATE}))'
            f" / (sum by (profile) (rate({S}results_total{{ns}}{_RATE})) > 0)"
        },
    ),
    Panel(
        "Executions per runner",
        "Programs that one runner executes per second.",
        "ops",
        {"executions": f'sum(rate({S}results_total{{ns}}{_RATE})) / sum({S}runners{{ns, state="ready"}})'},
    ),
    Panel(
        "Programs",
        "Programs waiting and running, and slots.",
        "short",
        {name: f"sum({S}{name}{{ns}})" for name in ("queued", "busy", "slots")},
    ),
    Panel(
        "Queue age",
        "How long the oldest waiting program has waited.",
        "s",
        {
            "oldest": f"(time() - {S}oldest_queued_timestamp_seconds{{ns}})"
            f" * ({S}oldest_queued_timestamp_seconds{{ns}} > bool 0)"
        },
    ),
    Panel("Queue time", "Time that a program waited for a slot.", "s", quantiles(f"{S}queue_seconds")),
    Panel("Run time", "Wall-clock time of a program.", "s", quantiles(f"{S}wall_seconds")),
    Panel(
        "Faults",
        "Attempts that a runner failed, time-outs repeated for lack of a processor, and programs never started.",
        "ops",
        {
            "faults": f"sum(rate({S}faults_total{{ns}}{_RATE}))",
            "reruns": f"sum(rate({S}reruns_total{{ns}}{_RATE}))",
            "unstarted: {{reason}}": f"sum by (reason) (rate({S}unstarted_total{{ns}}{_RATE}))",
        },
    ),
    Panel(
        "Runners",
        "Runners that are ready, and those refused for lack of isolation; starts in the shown time by outcome.",
        "short",
        {
            "{{state}}": f"sum by (state) ({S}runners{{ns}})",
            "starts: {{outcome}}": f"sum by (outcome) (increase({S}runner_starts_total{{ns}}[$__range]))",
        },
    ),
)

TRAINING = (
    Panel(
        "Trainings",
        "Running trainings, and those that ended in the shown time.",
        "short",
        {
            "running": f"sum({T}running_trainings{{ns}})",
            "{{state}}": f"sum by (state) (increase({T}ended_trainings_total{{ns}}[$__range]))",
        },
    ),
    Panel("Loss", "Loss of the last step.", "short", {"{{model}}": f"avg by (model) ({T}loss{{ns}})"}),
    Panel(
        "Throughput",
        "Tokens trained on per second, as the training program reports it.",
        "short",
        {"{{model}}": f"sum by (model) ({T}tokens_per_second{{ns}})"},
    ),
    Panel(
        "Steps",
        "The last step, and the steps that the training will take.",
        "short",
        {
            "{{model}}": f"max by (model) ({T}step{{ns}})",
            "{{model}} planned": f"max by (model) ({T}planned_steps{{ns}})",
        },
    ),
    Panel("Step rate", "Optimizer steps per second.", "ops", {"steps": f"sum(rate({T}steps_total{{ns}}{_RATE}))"}),
    Panel(
        "Restarts",
        "Restarts from a checkpoint in the shown time.",
        "short",
        {"restarts": f"sum(increase({T}restarts_total{{ns}}[$__range]))"},
    ),
    Panel(
        "FineTuneJobs",
        "FineTuneJobs in the namespace, by state.",
        "short",
        {"{{state}}": f"sum by (state) ({O}finetunejobs{{ns}})"},
        stacked=True,
        where="cluster",
    ),
    Panel(
        "Reconciliation",
        "Duration of the operator's looks at FineTuneJobs.",
        "s",
        quantiles(f"{O}reconcile_seconds"),
        where="cluster",
    ),
    Panel(
        "Reconciliation errors",
        "Looks that ended in an error and are repeated, by reason.",
        "ops",
        {"{{reason}}": f"sum by (reason) (rate({O}reconcile_errors_total{{ns}}{_RATE}))"},
        where="cluster",
    ),
)

JOBS = '{ns, job=~"codealign-.*"}'
SERVICES = (
    Panel("Up", "1 while Prometheus can scrape a server.", "short", {"{{job}}": f"min by (job) (up{JOBS})"}),
    Panel(
        "Processor",
        "Processor cores in use.",
        "short",
        {"{{job}}": f"sum by (job) (rate(process_cpu_seconds_total{JOBS}{_RATE}))"},
        stacked=True,
    ),
    Panel(
        "Memory",
        "Resident memory.",
        "bytes",
        {"{{job}}": f"sum by (job) (process_resident_memory_bytes{JOBS})"},
        stacked=True,
    ),
    Panel(
        "Calls",
        "gRPC calls started.",
        "ops",
        {"{{method}}": f"sum by (method) (rate(codealign_grpc_started_total{{ns}}{_RATE}))"},
    ),
    Panel(
        "Call time",
        "95th percentile of the duration of calls; streams last as long as their caller stays.",
        "s",
        {
            "{{method}}": "histogram_quantile(0.95, sum by (le, method)"
            f" (rate(codealign_grpc_handled_seconds_bucket{{ns}}{_RATE})))"
        },
    ),
    Panel(
        "Failed calls",
        "Share of calls that do not end with OK.",
        "percentunit",
        {
            "{{job}}": f'(sum by (job) (rate(codealign_grpc_handled_seconds_count{{ns, code!="OK"}}{_RATE}))'
            f" or 0 * sum by (job) (rate(codealign_grpc_handled_seconds_count{{ns}}{_RATE})))"
            f" / (sum by (job) (rate(codealign_grpc_handled_seconds_count{{ns}}{_RATE})) > 0)"
        },
    ),
    Panel("Database up", "1 while the database answers.", "short", {"{{job}}": f"min by (job) ({D}database_up{{ns}})"}),
    Panel("Database time", "Duration of transactions.", "s", quantiles(f"{D}database_seconds", "operation")),
    Panel(
        "Writes per transaction",
        "Requests and records that one transaction writes together.",
        "short",
        {"requests": mean(f"{D}batch_requests"), "records": mean(f"{D}batch_records")},
    ),
    Panel(
        "Rows per table",
        "Rows of the database's tables.",
        "short",
        {"{{table}}": f"max by (table) ({D}table_rows{{ns}})"},
    ),
    Panel("Database size", "Size of the database.", "bytes", {"size": f"max({D}database_size_bytes{{ns}})"}),
    Panel(
        "Free disk",
        "Share of a volume that is free.",
        "percentunit",
        {"{{job}} {{volume}}": "min by (job, volume) (codealign_disk_free_bytes{ns} / codealign_disk_size_bytes{ns})"},
    ),
    Panel(
        "Certificates",
        "Time until a server's certificate ends; none without TLS.",
        "s",
        {"{{job}}": "min by (job) (codealign_tls_certificate_expiry_timestamp_seconds{ns}) - time()"},
        where="cluster",
    ),
)

DASHBOARDS: Mapping[str, tuple[str, Sequence[Panel]]] = {
    "runs": ("Runs", RUNS),
    "inference": ("Inference", INFERENCE),
    "sandbox": ("Sandbox", SANDBOX),
    "training": ("Training", TRAINING),
    "services": ("Services", SERVICES),
}
"""Title and panels of each dashboard, by its file's name."""


def built(name: str) -> str:
    """Return a dashboard's JSON."""
    title, panels = DASHBOARDS[name]
    made = (
        dashboard.Dashboard(f"CodeAlign / {title}")
        .uid(f"codealign-{name}")
        .tags(["codealign"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("namespace")
            .label("Namespace")
            .datasource(SOURCE)
            .query("label_values(codealign_grpc_started_total, namespace)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(".*")
        )
    )
    for panel in panels:
        made.with_panel(_built(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _built(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(_WIDTH)
        .height(_HEIGHT)
        .min(0)
        .fill_opacity(20 if panel.stacked else 5)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, (legend, expression) in enumerate(zip(panel.queries, panel.expressions(), strict=True)):
        made.with_target(
            prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number)).range()
        )
    return made


def table() -> str:
    """Return the table of all panels for docs/monitoring.md."""
    rows = ["| dashboard | panel | shows | data |", "|---|---|---|---|"]
    for title, panels in DASHBOARDS.values():
        rows += [f"| {title} | {panel.title} | {panel.description} | {_DATA[panel.where]} |" for panel in panels]
    return "\n".join(rows)


def page() -> str:
    """Return docs/monitoring.md with the current table."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{rest.split(_END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    FOLDER.mkdir(exist_ok=True)
    for dashboard_name in DASHBOARDS:
        (FOLDER / f"{dashboard_name}.json").write_text(built(dashboard_name), encoding="utf-8")
