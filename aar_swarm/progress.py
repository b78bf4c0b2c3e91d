"""What a run tells while it lasts. This one keeps silent; the command line shows it."""


class Progress:
    """Override what you want to hear."""

    def stage(self, text: str) -> None:
        """Something new begins."""

    def agents(self, ready: int, total: int) -> None:
        """So many agents have logged on."""

    def session(self, elapsed_s: float, duration_s: float, commands: int, alive: int) -> None:
        """The session lasts; so many commands were sequenced, so many agents live."""

    def trials(self, made: int, total: int) -> None:
        """So many trials of a sweep were made."""
