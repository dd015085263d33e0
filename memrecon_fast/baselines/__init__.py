"""What the recovery is compared with: methods that are no iteration in slots."""
