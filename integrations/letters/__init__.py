"""Letters to residents, as PDFs."""
