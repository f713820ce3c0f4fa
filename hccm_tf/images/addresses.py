"""Connects to the hosts of URLs that a catalogue names, and to no internal ones."""

import ipaddress
import queue
import socket
import threading
import time

# An IPv6 address of these networks stands for the IPv4 address at its end.
IPV4_INSIDE = tuple(map(ipaddress.ip_network, ("::ffff:0:0/96", "64:ff9b::/96")))
# All others are internal, or of protocols that nobody serves photos with.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
IPV4_BY_RELAY = ipaddress.ip_network("2002::/16")


def is_public(address):
    """Whether an IP address, a str, is one of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip in network for network in IPV4_INSIDE):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.version == 6 and (ip not in PUBLIC_IPV6 or ip in IPV4_BY_RELAY):
        return False
    return ip.is_global and not ip.is_multicast


def look_up(host, port):
    """The addresses of a host, as of `socket.getaddrinfo`."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _look_up(host, port, end):
    """`look_up`, which may take minutes, until a time."""
    answer = queue.SimpleQueue()

    def ask():
        try:
            answer.put(look_up(host, port))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answer.get(timeout=max(end - time.monotonic(), 0))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


def connect(host, port, end, allow_private=False):
    """Looks a host up, once, and connects to what was found.

    Args:
        host: its name, or an address.
        port: int.
        end: of `time.monotonic`, when to give up.
        allow_private: whether addresses may be others than public ones.

    Returns:
        `socket.socket`, whose operations time out at `end` if they begin now.

    Raises:
        ValueError: if an address is not public.
        OSError: if there is no connection.
    """
    found = _look_up(host, port, end)
    if not (allow_private or all(is_public(address[0]) for *_, address in found)):
        raise ValueError(
            "its host has an address that is not public; allow_private_urls reads it"
        )
    failure = OSError("no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            # A socket with 0 seconds does not wait for what it is asked.
            connection.settimeout(max(end - time.monotonic(), 1e-3))
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure
