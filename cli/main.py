"""Entry point of `heddle`: finds the subcommand, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import sys

import click

from cli.commands import certificates, config, demo, inject, local, status, validate
from mesh.errors import HeddleError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="heddle")
def heddle() -> None:
    """Heddle: a service mesh for stock Envoy that speaks Istio's APIs.

    Start with `heddle demo`, or with `heddle local up -f DIR` on manifests of your own.
    """


for module in (local, status, certificates, config, inject, validate, demo):
    heddle.add_command(module.command)


def main() -> None:
    """Run the command line; 1 for an error of the user's or the mesh's, 130 after Ctrl-C."""
    try:
        code = heddle(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except HeddleError as error:
        click.echo(f"heddle: {error}", err=True)
        code = 1
    except BrokenPipeError:
        code = 141  # the reader of our output has gone, as with `| head`
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
