"""A small project on disk for the tests of the doors: one pipeline for each way a run can go."""

from pathlib import Path
from textwrap import dedent

FILES = {
    "metadata.yaml": "name: doors\n",
    "pipelines/hello/metadata.yaml": """
        name: Hello
        description: greets
        tags: [demo]
        blocks:
        - uuid: greet
          type: data_loader
          downstream_blocks: [shout]
          upstream_blocks: []
        - uuid: shout
          type: transformer
          upstream_blocks: [greet]
        """,
    "data_loaders/greet.py": """
        if 'data_loader' not in globals():
            from mage_ai.data_preparation.decorators import data_loader

        @data_loader
        def greet(*args, **kwargs):
            print('hello', kwargs.get('name', 'world'))
            return 'hello ' + kwargs.get('name', 'world')
        """,
    "transformers/shout.py": """
        @transformer
        def shout(text, *args, **kwargs):
            print('shouting', text.upper())
            return text.upper()
        """,
    "pipelines/broken_code/metadata.yaml": """
        blocks:
        - uuid: explode
          type: custom
          upstream_blocks: []
        """,
    "custom/explode.py": """
        @custom
        def explode(*args, **kwargs):
            print('about to fail')
            raise ValueError('no luck today')
        """,
    "pipelines/slow/metadata.yaml": """
        blocks:
        - uuid: wait_long
          type: custom
          upstream_blocks: []
        """,
    "custom/wait_long.py": """
        import time

        @custom
        def wait_long(*args, **kwargs):
            print('waiting', flush=True)
            time.sleep(60)
        """,
    "pipelines/sensing/metadata.yaml": """
        blocks:
        - uuid: never
          type: sensor
          upstream_blocks: []
        - uuid: explode_not
          type: custom
          upstream_blocks: [never]
        """,
    "sensors/never.py": """
        @sensor
        def never(*args, **kwargs):
            return False
        """,
    "custom/explode_not.py": """
        @custom
        def explode_not(*args, **kwargs):
            print('past the sensor')
        """,
    "pipelines/invalid/metadata.yaml": """
        blocks:
        - uuid: greet
          type: data_loader
          upstream_blocks: [nobody]
        """,
    "pipelines/hello/triggers.yaml": """
        triggers:
        - name: yearly
          schedule_type: time
          schedule_interval: 0 0 1 1 *
          start_time: 2020-01-01 00:00:00
          status: active
        - name: unreadable
          schedule_type: time
          schedule_interval: every now and then
          status: active
        """,
}


def make_project(root: Path) -> Path:
    """Write the project into `root`."""
    for name, text in FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip())
    return root
