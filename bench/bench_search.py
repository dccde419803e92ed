"""The nonce search on one thread, plain and version-rolled: what `wattwork hash --bench` measures (search_bench.py).

Beside each rate stands what this processor's ports allow (see port_bound.py), where they are known, and the share of it
that was reached.

    python bench/bench_search.py [ROUNDS]
"""

import sys

from port_bound import bound, clock_ghz, countable

from wattwork._search import isas
from wattwork.search_bench import VERSIONS, measure


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    rates = measure(isas(), rounds=rounds)
    mh_s = {(rate.name, rate.kind): rate.median / 1e6 for rate in rates}
    clock = clock_ghz()
    heads = f"{'MH/s':>8}{'x hashlib':>11}{'x OpenSSL':>11}{'operations':>12}{'bound, MH/s':>13}{'reached':>9}"
    print(f"{'':18}{heads}")
    for (name, kind), rate in mh_s.items():
        ratio = f"{rate / mh_s['openssl', '']:11.3f}" if ("openssl", "") in mh_s else f"{'unknown':>11}"
        line = f"{name:10}{kind:8}{rate:8.2f}{rate / mh_s['hashlib', '']:11.2f}{ratio}"
        if kind and countable(name):
            operations, cycles = bound(name, 1 if kind == "plain" else VERSIONS)
            line += f"{operations:12.1f}"
            if cycles and clock:
                line += f"{clock * 1e3 / cycles:13.1f}{rate * cycles / clock / 1e3:9.0%}"
        print(line)
    print(
        f"Medians of {rounds} interleaved rounds; openssl: M compressions/s; operations: the vector units', per nonce;"
    )
    print(f"bound: at {clock:.2f} GHz, the clock of scalar code.")


if __name__ == "__main__":
    main()
