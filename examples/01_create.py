"""A photo to an avatar from Python; the demo's person stands in where no photo is given.

python examples/01_create.py [PHOTO] [OUT]      about three minutes on two cores; interrupted, it goes on from where it stopped
"""

import sys
from pathlib import Path

from svad_ray.config import load_settings
from svad_ray.deliver import deliver
from svad_ray.evaluate.synthetic.demo import demo_person
from svad_ray.photo import load_photo

photo = load_photo(sys.argv[1]) if len(sys.argv) > 1 else demo_person().photo
out = Path(sys.argv[2] if len(sys.argv) > 2 else "out/example")
delivery = deliver(photo, out, load_settings(), consent="the person in the photo agreed")
for record in delivery.records:
    print(f"{record.name:20} {record.usage.wall_s:6.1f} s")
print(f"open {out / 'report.html'}")
