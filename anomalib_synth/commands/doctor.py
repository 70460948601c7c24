"""The command `anomalib-synth doctor`: what works on this machine, and how to get the rest to work."""

from __future__ import annotations


def doctor(*, as_json: bool = False) -> None:
    """Say what works on this machine, and how to get the rest to work. Nothing is downloaded.

    Args:
        as_json: Print JSON instead of a table.

    Raises:
        SystemExit: With status 1 if something is broken that should work everywhere.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from anomalib_synth._version import __version__
    from anomalib_synth.report.doctor import COLOURS, examine, print_remedies

    findings = list(examine())
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table(
            Column("what", no_wrap=True),
            "state",
            Column("found", overflow="fold"),
            title=f"anomalib-synth {__version__}",
        )
        previous = None
        for finding in findings:
            if finding.group != previous:
                table.add_section()
                table.add_row(f"[bold]{finding.group}")
            state = f"[{COLOURS[finding.state]}]{finding.state}"
            table.add_row(finding.name, state, escape(finding.detail))
            previous = finding.group
        console = Console()
        console.print(table)
        print_remedies(findings, console)
    if any(finding.state == "broken" for finding in findings):
        raise SystemExit(1)
