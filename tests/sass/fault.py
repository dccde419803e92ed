class Fault(Exception):
    """What the machine refuses to run, or what a GPU would trap on or leave undefined."""
