"""`headwater`: finds a command and imports only what that one needs."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "node": ("ops.cli.node:node", "Run one node until SIGTERM."),
    "health": ("ops.cli.health:health", "Ask the node of a configuration file how it is."),
    "up": ("ops.cli.up:up", "Start a local cluster of real processes."),
    "dashboard": ("ops.cli.dashboard:dashboard", "Serve a web page that shows the cluster and its sessions."),
    "demo": ("ops.cli.demo:demo", "Start a cluster, load it, and compare its nodes."),
    "failover-demo": ("ops.cli.failover_demo:failover_demo", "Kill a primary under load, and count what was lost."),
    "import": ("ops.cli.transcripts:import_transcripts", "Bring in transcripts of coding agents."),
    "append": ("ops.cli.sessions:append", "Append one entry to a session."),
    "show": ("ops.cli.sessions:show", "Print a session's transcript."),
    "sessions": ("ops.cli.sessions:sessions", "List sessions, most recently updated first."),
    "tail": ("ops.cli.sessions:tail", "Follow a session live."),
    "workspace": ("ops.cli.workspace:workspace", "Index a folder of Markdown files, and read the index."),
    "query": ("ops.cli.query:query", "Run read-only SQL over all shards of a node, or over one."),
    "status": ("ops.cli.status:status", "Show roles, positions and lag of each node."),
    "top": ("ops.cli.top:top", "Show the cluster live in the terminal, with keys."),
    "switchover": ("ops.cli.switchover:switchover", "Let another node lead a group."),
    "drain": ("ops.cli.switchover:drain", "Let a node lead nothing, before its maintenance."),
    "undrain": ("ops.cli.switchover:undrain", "Let a drained node lead again."),
    "verify": ("ops.cli.verify:verify", "Compare the shards of several nodes page by page."),
    "resync": ("ops.cli.resync:resync", "Make shards of a standby equal to the primary's."),
    "bench": ("ops.cli.bench:bench", "Measure speed on a cluster of real processes."),
}

EPILOG = (
    "Exit codes: 0 it worked; 1 it did not hold or failed; 2 the command line is wrong; "
    "3 no node can be reached; 4 the outcome of a write is unknown; 5 a workspace has another source; "
    "130 it was interrupted."
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.command(cls=LazyGroup, epilog=EPILOG)
@click.version_option(package_name="headwater")
def main() -> None:
    """Replicated storage for the sessions of coding agents.

    Begin with a cluster on this machine, then bring in what you have. Commands look for that cluster's nodes; name
    those of another with the environment variable HEADWATER_NODE, or with --node where any of them will do and
    --nodes where each is asked; several with commas between.

    \b
    Example:
      headwater up --nodes 3 --data ./cluster
      headwater import ~/.claude/projects
    """  # noqa: D301 - click wants the character itself


if __name__ == "__main__":
    main()
