"""Clinics' own systems: what they are handed in FHIR R4, what they say in it, and the bell that tells them to look."""
