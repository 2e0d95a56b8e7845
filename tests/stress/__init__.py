"""Unkindness on purpose: daemons are killed and stopped under load, and a checker outside the database decides."""
