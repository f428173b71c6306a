"""Finding this machine's archive in both formats of apt sources."""

from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release


def test_one_line_entries_of_an_archive_are_merged(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "# deb http://archive.invalid/old old main\n"
        "deb http://archive.invalid/ubuntu noble main restricted\n"
        "deb http://archive.invalid/ubuntu noble universe # more\n"
        "deb-src http://archive.invalid/ubuntu noble main\n"
        "deb [arch=amd64] http://other.invalid/apt cloud main\n"
    )
    (source,) = distribution_sources("noble", tmp_path)
    assert source.line("devel") == (
        "deb http://archive.invalid/ubuntu devel main restricted universe"
    )


def test_stanzas_keep_their_keyring(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\n"
        "# a comment\n"
        "URIs: http://archive.invalid/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/archive.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://archive.invalid/debian-security\n"
        "Suites: bookworm-security\n"
        "Components: main\n"
        "\n"
        "Types: deb\nURIs: http://archive.invalid/off\nSuites: bookworm\nEnabled: no\n"
    )
    (source,) = distribution_sources("bookworm", tmp_path)
    assert source.line("forky") == (
        "deb [signed-by=/usr/share/keyrings/archive.gpg] http://archive.invalid/debian forky main"
    )


def test_derivative_counts_as_its_parent_distribution(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text(
        'ID=mint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=x\nUBUNTU_CODENAME=noble\n'
    )
    assert (os_release(release).family, os_release(release).codename) == ("ubuntu", "noble")
