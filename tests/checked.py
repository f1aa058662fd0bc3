"""The type checker of the tests' import hook: an int passes where a float is asked for, as in any type checker."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
