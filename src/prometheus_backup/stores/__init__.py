"""Object stores: where a repository's bytes lie. The contract is `base.ObjectStore`."""
