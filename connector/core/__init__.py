"""Packets and money, decided purely: values, `now` and ids come in, decisions and bytes go out."""
