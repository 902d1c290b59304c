"""An asyncio server on gRPC's own core: what Sluice uses of grpc.aio, for half of its price."""
