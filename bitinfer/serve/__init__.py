"""``bitinfer serve``: the HTTP server; all but `backend` needs the extra ``server``."""
