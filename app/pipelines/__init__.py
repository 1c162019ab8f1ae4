"""A project folder on disk, in Mage's layout, as values: project, pipelines, triggers. Never writes."""
