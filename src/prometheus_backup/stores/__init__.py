"""Object stores: keep bytes under keys.

Open `base.py` first: the docstring of `ObjectStore` is the contract, and tests/stores/ runs it
against every store. `location.py` parses an address and opens its store: `local.py` (a directory),
`s3.py`, or `cloud.py` (Google Cloud Storage and Azure). The last two share `objectstore.py`, which
uses the obstore library; `failures.py` turns exceptions of libraries into our errors, and
`s3_access.py` finds credentials and certificates. Retries happen here and nowhere else.
"""
