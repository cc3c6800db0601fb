"""Where entries are kept: the protocol in `base`, and one module or package for each kind of store."""
