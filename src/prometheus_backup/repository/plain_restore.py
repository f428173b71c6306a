"""`RESTORE.sh`: a script that restores one archive backup with plain tools.

It is made from the manifest alone, so that verification can compare it.
"""

import shlex

from prometheus_backup.repository.layout import SUMS
from prometheus_backup.repository.manifest import Manifest

_HEAD = """\
#!/bin/sh
# Restore {id} without prometheus-backup.
#
#   sh RESTORE.sh REPOSITORY TARGET
#
# REPOSITORY is the address that holds the backups, such as s3://BUCKET/PREFIX (this needs the aws
# client), or a directory with a copy of it. For gs:// and az:// the commands are printed only: pipe
# them into sh. TARGET is the data directory to restore into, which must be empty or absent.
set -eu

if [ $# -ne 2 ]; then
  echo "usage: sh RESTORE.sh REPOSITORY TARGET" >&2
  exit 2
fi
repository=${{1%/}}
target=$2
staged=$target/.{id}.partial

quoted() {{ printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\\\\\''/g")"; }}
printed() {{ for word in "$@"; do quoted "$word"; printf ' '; done; echo; }}
run() {{ "$@"; }}
case $repository in
  s3://*) fetch() {{ run aws s3 cp --only-show-errors "$repository/$1" "$staged/$2"; }} ;;
  gs://*)
    run() {{ printed "$@"; }}
    fetch() {{ run gcloud storage cp "$repository/$1" "$staged/$2"; }} ;;
  az://*)
    run() {{ printed "$@"; }}
    path=${{repository#az://}}/
    fetch() {{
      key=${{path#*/}}$1
      run az storage blob download --container-name "${{path%%/*}}" \
        --name "$key" --file "$staged/$2"
    }} ;;
  *://*)
    echo "cannot restore from $repository: only s3://, gs://, az:// and directories work" >&2
    exit 2 ;;
  *) fetch() {{ run cp "$repository/$1" "$staged/$2"; }} ;;
esac

if [ -e "$target" ] && [ -n "$(ls -A "$target" | grep -vx -e lost+found -e ".{id}.partial")" ]; then
  echo "cannot restore into $target: it is not empty" >&2
  exit 31
fi
"""
_TAIL = """\
run sh -c 'cd "$1" && if [ -s {sums} ]; then sha256sum -c {sums}; fi' sh "$staged"
run rm "$staged/{sums}"
{moves}run rmdir "$staged"
run echo "restored {id} into $target"
"""


def restore_script(manifest: Manifest) -> bytes:
    """Return `RESTORE.sh` of a backup: one copy for each file, a check of all, then the moves."""
    folders = sorted(
        {f"{b.ulid}/{f.path}".rpartition("/")[0] for b, f in manifest.files()}
        | {b.ulid for b in manifest.blocks}
    )
    made = [
        "run set -eu",
        'run mkdir -p "$staged"',
        *(f'run mkdir -p "$staged"/{_q(folder)}' for folder in folders),
    ]
    copies = [
        f"fetch {_q(file.key)} {_q(f'{block.ulid}/{file.path}')}"
        for block, file in manifest.files()
    ]
    copies.append(f"fetch {_q(f'{manifest.backup_id}/{SUMS}')} {SUMS}")
    moves = "".join(f'run mv "$staged"/{b.ulid} "$target"/{b.ulid}\n' for b in manifest.blocks)
    head = _HEAD.format(id=manifest.backup_id)
    tail = _TAIL.format(id=manifest.backup_id, sums=SUMS, moves=moves)
    return "\n".join([head, *made, *copies, tail]).encode()


def _q(text: str) -> str:
    return shlex.quote(text)
