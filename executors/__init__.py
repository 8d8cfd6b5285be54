"""What makes desired state real on one host: hypervisor, storage, network, and the agent."""
