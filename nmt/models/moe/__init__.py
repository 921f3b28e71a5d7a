"""Mixture of experts: routing (who goes where), dispatch (how tokens move), experts, losses."""
