"""An asyncio server on gRPC's own core: what Sluice uses of grpc.aio, for a third of its price."""
