"""Level `checksum` finds a flipped bit anywhere, even where level `tsdb` cannot."""

import random

from tests.support.stored_backups import LocalFiles, StoredBackups, block_keys, json_of, run_here


def test_one_bit_flipped_in_each_file_is_found_in_each(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    chooser = random.Random(0)
    keys = block_keys(repository_files, stored.first)
    for key in keys:
        body = bytearray(repository_files.get(key))
        body[chooser.randrange(len(body))] ^= 1 << chooser.randrange(8)
        repository_files.put(key, bytes(body))

    done = run_here("verify", stored.first, "--json", env=repository_files.environment())

    (result,) = json_of(done, code=41)["results"]
    assert [finding["key"] for finding in result["findings"]] == sorted(keys)
    assert {finding["kind"] for finding in result["findings"]} == {"altered"}
