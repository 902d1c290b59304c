"""A model of pods, clients and autoscalers in which Sluice's real decisions are compared with its peers'.

traffic     how much work clients ask for, drawn once per seed and the same for every policy
pods        queues: what waits, what is computed, what is refused, what is too late
clients     what becomes of refused requests, and the share of all that was answered in time
cluster     Deployment, kubelet and endpoints: pods that warm up, become ready, drain and go
policies    who decides the number of pods: Sluice's operator, HPA, Knative's KPA, KEDA
tunings     the policies with their settings
scenarios   the traffic and the faults that policies are compared under
runs        one policy under one scenario
frontier    pod-seconds against the share in time, over the tunings of a policy
report      the tables
plots       the pictures

`python -m simulation` runs everything and writes simulation/results/.
"""
