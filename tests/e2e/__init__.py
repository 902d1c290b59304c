"""The main job on the local cluster: real kubelet, real images, the chart, kubectl."""
