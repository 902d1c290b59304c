"""Ten thousand malformed requests over every API, each judged here, independently of the server."""
