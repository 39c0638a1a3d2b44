"""Packs a folder as a wheel: ``python pack.py FOLDER WHEEL``.

FOLDER has the contents of site-packages, with METADATA, WHEEL, and entry_points.txt in its only
``.dist-info``. RECORD is added. The same files give the same wheel.
"""

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

TIME = (2020, 1, 1, 0, 0, 0)  # a fixed time, so that wheels are reproducible


def main(folder, wheel):
    (info,) = folder.glob("*.dist-info")
    record = f"{info.name}/RECORD"
    lines = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:

        def add(name, data, mode):
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)

        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}\n")
            add(name, data, 0o755 if path.stat().st_mode & 0o100 else 0o644)
        lines.append(f"{record},,\n")
        add(record, "".join(lines).encode(), 0o644)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
