"""Training of FlowReasoner's meta-agent (arXiv:2504.15257, sections 4.2 and 4.3): not built yet."""
