"""The lab's side: tables that come in, order files that go out, screening, simulated labs."""
