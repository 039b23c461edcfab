import numpy as np
import torch

from svad_ray.geometry.mesh import face_areas, laplacian, mean_edge, scatter, subdivide, unique_edges, vertex_normals

TETRA = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def test_subdivision_adds_edge_midpoints_in_sorted_order_and_keeps_the_surface():
    matrix, faces = subdivide(FACES, 4)
    fine = matrix @ TETRA
    edges = unique_edges(FACES)
    assert np.allclose(fine[:4], TETRA) and np.allclose(fine[4:], TETRA[edges].mean(1))
    assert len(faces) == 16 and np.isclose(face_areas(fine, faces).sum(), face_areas(TETRA, FACES).sum())


def test_a_tetrahedron_has_the_complete_graph_as_laplacian():
    assert np.allclose(laplacian(FACES, 4).toarray(), 4 * np.eye(4) - np.ones((4, 4)))


def test_normals_of_a_closed_mesh_point_outwards():
    n = vertex_normals(torch.tensor(TETRA), torch.tensor(FACES)).numpy()
    assert ((n * (TETRA - TETRA.mean(0))).sum(1) > 0).all() and np.allclose(np.linalg.norm(n, axis=1), 1)


def test_mean_edge_of_the_corner_is_one():
    assert np.isclose(mean_edge(TETRA, FACES)[0], 1.0)


def test_scatter_is_uniform_by_area_and_lies_on_the_faces():
    face, bary, spacing = scatter(TETRA, FACES, 20000, seed=3)
    share = np.bincount(face, minlength=4) / len(face)
    area = face_areas(TETRA, FACES)
    assert np.allclose(share, area / area.sum(), atol=1e-3) and np.allclose(bary.sum(1), 1) and (bary >= 0).all()
    assert np.allclose(spacing**2 * len(face), area.sum(), rtol=1e-3)


def test_density_multiplies_the_share_of_a_face_and_shrinks_its_spacing():
    density = np.array([4.0, 1, 1, 1])
    face, _, spacing = scatter(TETRA, FACES, 20000, density=density, seed=3)
    expected = face_areas(TETRA, FACES) * density
    assert np.allclose(np.bincount(face) / len(face), expected / expected.sum(), atol=1e-3)
    assert np.isclose(spacing[face == 1][0] / spacing[face == 0][0], 2.0, rtol=1e-5)
