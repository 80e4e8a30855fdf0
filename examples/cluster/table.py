"""What was found, as one table: engine, event, plain, ours. Plain has to leave something, ours nothing."""


class Table:
    def __init__(self, engine):
        self.engine, self.rows, self.wrong = engine, [], []

    def row(self, event, plain, ours, note="", must_leave=True):
        """Two counts of processes that are left; `plain` may be None where there is no plain way."""
        self.rows.append((self.engine, event, "" if plain is None else str(plain), str(ours), note))
        if plain == 0 and must_leave:
            self.wrong.append(f"{self.engine}, {event}: plain leaves nothing, so this shows nothing")
        if ours:
            self.wrong.append(f"{self.engine}, {event}: ours leaves {ours}")
        print(self.line(self.rows[-1]), flush=True)

    def say(self, what, value):
        """A figure."""
        self.rows.append((self.engine, what, "", "", value))
        print(self.line(self.rows[-1]), flush=True)

    def check(self, what, is_so):
        if not is_so:
            self.wrong.append(f"{self.engine}: {what}")
        print(f"{self.engine}: {what}: {'yes' if is_so else 'NO'}", flush=True)

    @staticmethod
    def line(row):
        return "| {:6} | {:66} | {:>5} | {:>4} | {} |".format(*row)

    def close(self):
        """Says what is wrong; returns an exit status."""
        for wrong in self.wrong:
            print(f"WRONG: {wrong}")
        return 1 if self.wrong else 0


HEAD = Table.line(("engine", "event", "plain", "ours", "")) + "\n|---|---|---|---|---|"
