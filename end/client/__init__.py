"""The device's side of the socket: connection, spool, identity, verified installation."""
