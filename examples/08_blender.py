"""An exported mesh in Blender: imported with its skeleton and clips, one clip chosen, one frame rendered on the CPU.

svad-ray export out/me --format mesh --out mesh.glb
blender --background --python examples/08_blender.py -- mesh.glb walk.png [walk]      (or pip install bpy, and python without --)
"""

import sys
from pathlib import Path

import bpy

words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
mesh, picture, clip = words[0], words[1], words[2] if len(words) > 2 else "walk"

bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=str(Path(mesh).absolute()))
person = next(thing for thing in bpy.data.objects if thing.type == "MESH" and thing.find_armature())
skeleton = person.find_armature()
action = next(a for a in bpy.data.actions if a.name.startswith(clip))
skeleton.animation_data_create()
for track in skeleton.animation_data.nla_tracks:
    track.mute = True
skeleton.animation_data.action = action
if getattr(action, "slots", None):  # Blender 4.4 and later
    skeleton.animation_data.action_slot = action.slots[0]
scene = bpy.context.scene
first, last = action.frame_range
scene.frame_set(int(first + 0.56 * (last - first)))
clips = ", ".join(a.name for a in bpy.data.actions)
print(f"{len(person.data.vertices)} vertices, {len(skeleton.data.bones)} bones, clips {clips}; {last - first:.0f} frames of {action.name}")

camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
camera.location, camera.rotation_euler = (-1.9, -2.3, 0.95), (1.5708, 0.0, -0.69)  # z is up in Blender, and the front of the glTF is -y
scene.collection.objects.link(camera)
scene.camera, scene.render.engine, scene.cycles.samples = camera, "CYCLES", 4
scene.render.resolution_x = scene.render.resolution_y = 256
scene.render.film_transparent, scene.view_settings.view_transform = True, "Standard"
scene.render.filepath = str(Path(picture).absolute())
bpy.ops.render.render(write_still=True)
