"""Entry point of the `codealign` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.text import Text
from typer.core import TyperGroup

from codealign.cli import __version__
from codealign.cli.commands import (
    certificate,
    console,
    data,
    diff,
    doctor,
    dropped,
    evaluate,
    experiment,
    imports,
    pipelines,
    rejudge,
    run,
    runs,
    sandbox,
    seeds,
    train,
    up,
)
from codealign.cli.failures import EXIT_FAILURE, EXIT_INTERRUPTED, Failure, Interrupted
from codealign.cli.terminal import err, printable
from codealign.common import logs
from codealign.common.errors import ConfigurationError
from codealign.common.text import encodable

_LOG_VARIABLE = "GRPC_VERBOSITY"


class Commands(TyperGroup):
    """Root command group. It turns whatever ends a command into one message and an exit code."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # typer.Context is click's
        """Run the command.

        Raises:
            typer.Exit: The command failed or was interrupted; carries the exit code.
        """
        try:
            return super().invoke(ctx)
        except Failure as failure:
            _explain(failure.message, ctx, warn=isinstance(failure, Interrupted))
            raise typer.Exit(failure.exit_code) from None
        except ConfigurationError as error:
            _explain(str(error), ctx)
            raise typer.Exit(EXIT_FAILURE) from None
        except KeyboardInterrupt:
            _explain("stopped", ctx, warn=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise  # a usage error: Typer prints it
            odd = next((each for each in sys.argv if encodable(each) != each), "")
            if odd and isinstance(error, UnicodeEncodeError | json_format.ParseError):
                _explain(f"an argument is no UTF-8 text, which no service takes: {encodable(odd)}", ctx)
                raise typer.Exit(EXIT_FAILURE) from None
            _explain(
                f"unexpected {type(error).__name__}: {error} (this is a bug; run with --debug for the traceback)", ctx
            )
            raise typer.Exit(EXIT_FAILURE) from None


def _explain(message: str, ctx: typer.Context, *, warn: bool = False) -> None:
    if ctx.params.get("debug") and not warn:
        err.print_exception()
    said = warn or message.startswith("codealign-")  # such a message already names the service
    err.print(Text(printable(message if said else f"codealign: {message}"), style="yellow" if warn else "red"))


app = typer.Typer(
    cls=Commands,
    name="codealign",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Align a base code LLM with instruction data that it writes itself and that a sandbox verifies.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"codealign {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="CODEALIGN_DEBUG", help="Print tracebacks of failures.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Align a base code LLM with instruction data that it writes itself and that a sandbox verifies."""
    # The clients log their retries. Users see only the outcome.
    logs.configure("cli", "debug" if debug else "error", "console")


app.command("up")(up.up)
app.command("run")(run.run)
app.command("rejudge")(rejudge.rejudge)
app.command("watch")(runs.watch)
app.command("ls")(runs.list_runs)
app.command("report")(runs.report)
app.command("pause")(runs.pause)
app.command("resume")(runs.resume)
app.command("cancel")(runs.cancel)
app.command("pipelines")(pipelines.pipelines)
app.add_typer(seeds.app, name="seeds")
app.command("import")(imports.import_command)
data.app.command("diff")(diff.diff)
data.app.command("dropped")(dropped.dropped)
app.add_typer(data.app, name="data")
app.add_typer(sandbox.app, name="sandbox")
app.command("train")(train.train_command)
app.add_typer(train.app, name="trainings")
app.command("eval")(evaluate.eval_command)
app.add_typer(experiment.app, name="experiment")
app.command("certificate")(certificate.certificate)
app.command("console")(console.console)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the `codealign` script."""
    # Silence gRPC's own messages about connection attempts: the CLI's errors say more.
    os.environ.setdefault(_LOG_VARIABLE, "NONE")
    sys.exit(app(prog_name="codealign"))


if __name__ == "__main__":
    main()
