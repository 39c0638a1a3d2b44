"""Compares the nearest-patch search of in-context segmentation with faiss and torch.

    python benches/peers/hummingbird.py --ours target/debug/examples/nearest

The reference implementations of Hummingbird search with faiss's exact index (IndexFlatIP). `torch`
uses torch.mm and torch.topk with the same block sizes as ours. All run on the CPU, with the same
number of threads and random features of the same sizes, in turns; the shortest time of all rounds
counts. A peer whose package is missing is null, with the reason in `missing`. Build ours with
`cargo build --workspace --example nearest`.

Prints one JSON object as its last line.
"""

import argparse
import json
import subprocess
import time

import torch


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", help="program of the example `nearest`")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--k", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="accepted for the sake of other peers")
    return parser.parse_args()


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def blocks(queries, keys, k):
    for rows in queries.split(1024):
        found = None
        for start in range(0, len(keys), 16 << 10):
            values, places = torch.mm(rows, keys[start : start + (16 << 10)].T).topk(k)
            if found is not None:
                values, places = torch.cat([found[0], values], 1), torch.cat([found[1], places + start], 1)
                values, order = values.topk(k)
                places = places.gather(1, order)
            found = values, places


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keys, queries = (
        torch.nn.functional.normalize(torch.randn(rows, args.width)) for rows in (args.keys, args.queries)
    )
    works, missing = {"torch_s": lambda: blocks(queries, keys, args.k)}, {}
    try:
        import faiss

        faiss.omp_set_num_threads(args.threads)
        index = faiss.IndexFlatIP(args.width)
        index.add(keys.numpy())
        works["faiss_s"] = lambda: index.search(queries.numpy(), args.k)
    except ImportError as error:
        missing["faiss_s"] = str(error)
    times = dict.fromkeys(["nearest_s", "torch_s", "faiss_s"])
    sizes = [args.keys, args.queries, args.width, args.k, 1, args.threads]
    for _ in range(args.rounds):
        took = {name: seconds(work) for name, work in works.items()}
        if args.ours:
            command = [args.ours, *map(str, sizes)]
            took |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for name, value in took.items():
            times[name] = min(value, times[name] or value)
    ours = times["nearest_s"]
    ratio = {name: ours and value and value / ours for name, value in times.items() if name != "nearest_s"}
    print(json.dumps(vars(args) | times | {"ours_is_faster_by": ratio, "missing": missing}))


if __name__ == "__main__":
    main()
