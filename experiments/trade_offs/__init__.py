"""The trade-offs study: five designs of visual world models under one planner (Babaeizadeh et al. 2020)."""
