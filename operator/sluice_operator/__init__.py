"""The operator of Sluice: observe, decide, act.

Data flows one way. `handlers` receives watch events and puts objects into `store`; one `reconciler` per
EmbeddingService turns them into an observation (`observe`, `health_client`), asks the pure core for a plan
(`plan`, out of `readiness`, `scaling`, `conditions`, `manifests`) and has it carried out (`act`). Nothing but
`act` writes to Kubernetes.
"""
